// What Swift cannot express: a thread-local buffer and the compiler's target macros.
#include "kds_core.h"
#include "kdswift_internal.h"
#include <string.h>

static _Thread_local char message_buffer[4096];

const char *kds_last_error(void) { return message_buffer; }

void kdswift_set_last_error(const char *message) {
  if (message == NULL) message = "";
  size_t length = strlen(message);
  size_t limit = sizeof message_buffer - 1;
  if (length > limit) {
    // Never cut a UTF-8 sequence in two.
    length = limit;
    while (length > 0 && ((unsigned char)message[length] & 0xC0) == 0x80) length--;
  }
  memcpy(message_buffer, message, length);
  message_buffer[length] = 0;
}

const char *kdswift_compiled_isa(void) {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  return "x86-64-v4";
#elif defined(__AVX2__) && defined(__FMA__)
  return "x86-64-v3";
#else
  return "baseline";
#endif
}
