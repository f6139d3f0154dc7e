// DLPack structs for the Swift side; these names are not exported.
#ifndef KDSWIFT_DLPACK_H
#define KDSWIFT_DLPACK_H
#include <stdint.h>

/// Makes a DLManagedTensor (or DLManagedTensorVersioned 1.0, read-only) over row-major memory of the
/// CPU. Its deleter calls `release(owner)` and frees the struct. NULL when there is no memory.
/// @param is_float  1 for float32, 0 for int64
void *kdswift_dlpack_new(
    void *data, int32_t rank, const int64_t *dims, int32_t is_float, int32_t versioned, void *owner,
    void (*release)(void *));

#endif
