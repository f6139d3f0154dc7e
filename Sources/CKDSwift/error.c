// The thread-local message: Swift has no thread-local attribute.
#include "kds_core.h"
#include <string.h>

static _Thread_local char message_buffer[2048];

const char *kds_last_error(void) { return message_buffer; }

void kds_set_last_error(const char *message) {
  if (message == NULL) message = "";
  strncpy(message_buffer, message, sizeof message_buffer - 1);
  message_buffer[sizeof message_buffer - 1] = 0;
}
