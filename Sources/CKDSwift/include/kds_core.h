// Versions, errors, threads, seeds. Every function returns a status (0 = ok, else a KDS_STATUS_*).
#ifndef KDS_CORE_H
#define KDS_CORE_H
#include <stdint.h>

#define KDS_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif
/// The ABI version that the library was built with; compare with KDS_ABI_VERSION. @since 0.1
int32_t kds_abi_version(int32_t *out_version);
/// The message of the last failed call on this thread; "" when there is none. Never NULL. @since 0.1
const char *kds_last_error(void);
/// Sets the message of this thread; for the boundary's own use. @since 0.1
void kds_set_last_error(const char *message);
#ifdef __cplusplus
}
#endif
#endif
