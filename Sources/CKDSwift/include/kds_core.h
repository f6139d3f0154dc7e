/// @file kds_core.h
/// Versions, errors, threads, live handles.
///
/// The conventions of the whole ABI:
/// - Every function returns a status: 0, or one of `KDS_STATUS_*`. Only `kds_last_error` differs.
/// - Results go through trailing out-pointers; they are written only when the status is 0.
/// - After a failure `kds_last_error` gives the message, on the thread that made the call.
/// - Handles are made by one function and ended by one `kds_*_release`. Releasing NULL does nothing;
///   a handle that was released, or never existed, is refused with `KDS_STATUS_ARGUMENT`.
/// - Buffers of the caller are borrowed for the length of the call; whatever is kept is copied.
/// - Text out: `(capacity, out_needed, out_text)`. `out_needed` gets the bytes with the final zero;
///   nothing is written to `out_text` when `capacity` is smaller, so ask with capacity 0, then again.
/// - Options: one JSON object; an absent key keeps its default, an unknown key is an error.
/// - Functions may be called from any thread; one handle must not be changed by two at a time.
#ifndef KDS_CORE_H
#define KDS_CORE_H
#include <stdint.h>

/// Raised by one whenever a declaration of this ABI changes.
#define KDS_ABI_VERSION 1

#define KDS_STATUS_OK 0
/// A value outside what the operation accepts, NULL, or a handle that does not exist.
#define KDS_STATUS_ARGUMENT 1
/// Shapes that do not go together.
#define KDS_STATUS_SHAPE 2
/// A damaged or unexpected file or document.
#define KDS_STATUS_FORMAT 3
/// A library underneath refused, or memory ran out.
#define KDS_STATUS_RUNTIME 4

/// Convolution algorithms by a fixed rule on the shape: runs repeat bit for bit.
#define KDS_CONV_PLAN_STATIC 0
/// Convolution algorithms timed at first use and kept.
#define KDS_CONV_PLAN_MEASURED 1
/// One algorithm wherever it exists, for comparisons.
#define KDS_CONV_PLAN_DIRECT 2
#define KDS_CONV_PLAN_WINOGRAD 3

#ifdef __cplusplus
extern "C" {
#endif

/// The ABI version that the library was built with; compare with KDS_ABI_VERSION. @since 0.1
int32_t kds_abi_version(int32_t *out_version);

/// The message of the last failed call on this thread; "" when there is none. Never NULL. @since 0.1
const char *kds_last_error(void);

/// What this library is, as a JSON object: `version`, `abi`, `isa` ("x86-64-v4", "x86-64-v3" or
/// "baseline"), `onednn`, `openblas`, `threads`. @since 0.1
int32_t kds_build_info(int64_t capacity, int64_t *out_needed, char *out_text);

/// Sets how many threads the engine uses, 1 to 1024; the default is OMP_NUM_THREADS, else the number
/// of processors. @since 0.1
int32_t kds_set_num_threads(int32_t count);

/// How many threads the next call uses; 1 in a forked child. @since 0.1
int32_t kds_get_num_threads(int32_t *out_count);

/// How many handles are alive, of all kinds; for leak tests. @since 0.1
int32_t kds_live_handles(int64_t *out_count);

/// Memory of tensors and scratch space, in bytes: in use, kept for reuse, the most in use at a time since
/// the start or the last call with `reset_peak` != 0, and how often the system was asked. @since 0.1
int32_t kds_memory_stats(int32_t reset_peak, int64_t *out_in_use, int64_t *out_cached,
                         int64_t *out_peak, int64_t *out_allocations);

/// Hands the memory that is kept for reuse back to the system. @since 0.1
int32_t kds_release_memory(void);

/// How convolution algorithms are chosen: one of KDS_CONV_PLAN_*. @since 0.1
int32_t kds_set_conv_plan(int32_t mode);

#ifdef __cplusplus
}
#endif
#endif
