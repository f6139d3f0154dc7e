/// @file kds_tensor.h
/// Tensors: data in and out, the gradient tape, and every operation by its name.
///
/// A handle owns one reference to a tensor. Each `out_tensor` below is a new handle which the caller
/// ends with `kds_tensor_release`; the tensors that an operation keeps for its gradient stay alive
/// behind the tape, whatever the caller releases.
#ifndef KDS_TENSOR_H
#define KDS_TENSOR_H
#include <stdint.h>

/// 32-bit floating point: everything that is learned.
#define KDS_DTYPE_FLOAT32 0
/// 64-bit integers: labels, indices, masks.
#define KDS_DTYPE_INT64 1
/// The most axes that a tensor has.
#define KDS_MAX_RANK 8

#ifdef __cplusplus
extern "C" {
#endif

/// A tensor. End it with `kds_tensor_release`.
typedef struct kds_tensor_s *kds_tensor;

/// Makes a tensor from row-major data, which is copied; NULL data makes zeros.
/// @param dtype  KDS_DTYPE_*, also the element type of `data`
/// @param rank   number of axes, 0 to KDS_MAX_RANK; 0 makes a scalar
/// @param dims   `rank` sizes, each >= 0; may be NULL when `rank` is 0
/// @return KDS_STATUS_SHAPE when the sizes are negative or their product is too large. @since 0.1
int32_t kds_tensor_create(
    int32_t dtype, int32_t rank, const int64_t *dims, const void *data, kds_tensor *out_tensor);

/// Ends a handle. NULL does nothing. @since 0.1
int32_t kds_tensor_release(kds_tensor tensor);

/// Shape and element type. Writes at most `capacity` sizes to `out_dims`, and always the true rank;
/// KDS_MAX_RANK is enough for any tensor. @since 0.1
int32_t kds_tensor_info(
    kds_tensor tensor, int32_t capacity, int64_t *out_dims, int32_t *out_rank, int32_t *out_dtype);

/// Copies all elements to the caller's buffer, row-major, whatever the layout in memory.
/// @param byte_capacity  size of the buffer; less than the tensor's bytes is KDS_STATUS_ARGUMENT
/// @param out_data       may be NULL when the tensor is empty. @since 0.1
int32_t kds_tensor_copy_out(kds_tensor tensor, int64_t byte_capacity, void *out_data);

/// The value of a tensor with one element; KDS_STATUS_SHAPE for any other. Integers beyond 2^53 are
/// rounded. @since 0.1
int32_t kds_tensor_item(kds_tensor tensor, double *out_value);

/// The same values in row-major memory, off the tape: the tensor itself when it lies so already,
/// else a copy. @since 0.1
int32_t kds_tensor_plain(kds_tensor tensor, kds_tensor *out_tensor);

/// The address of the elements of a tensor in row-major memory (see `kds_tensor_plain`). It is valid
/// as long as any handle to this tensor lives, 64-byte aligned, and must not be written through.
/// KDS_STATUS_ARGUMENT when the tensor lies in another layout. @since 0.1
int32_t kds_tensor_data(kds_tensor tensor, const void **out_data);

/// A DLPack `DLManagedTensor` (or, with `versioned` 1, a `DLManagedTensorVersioned` of version 1.0,
/// flagged read-only) over the elements, without a copy when they are row-major. The caller owns the
/// struct and ends it through its own `deleter`; it needs no handle to stay alive. @since 0.1
int32_t kds_tensor_to_dlpack(kds_tensor tensor, int32_t versioned, void **out_managed);

/// Whether backward passes leave a gradient here: 1 or 0. @since 0.1
int32_t kds_tensor_get_requires_grad(kds_tensor tensor, int32_t *out_requires_grad);

/// Asks for a gradient (1) or not (0). Only for float32 tensors that no operation made.
/// @since 0.1
int32_t kds_tensor_set_requires_grad(kds_tensor tensor, int32_t requires_grad);

/// Whether operations on this tensor go on the tape: it requires a gradient, or came from one that
/// does. 1 or 0. @since 0.1
int32_t kds_tensor_is_tracked(kds_tensor tensor, int32_t *out_tracked);

/// The accumulated gradient; NULL (and status 0) when there is none yet. @since 0.1
int32_t kds_tensor_grad(kds_tensor tensor, kds_tensor *out_tensor);

/// Forgets the gradient. @since 0.1
int32_t kds_tensor_zero_grad(kds_tensor tensor);

/// Adds the gradient of `tensor` to every tensor that requires one and that it came from, and frees
/// the tape behind it.
/// @param seed  the gradient of the tensor itself, of its shape; NULL for 1, if it is one number.
/// @since 0.1
int32_t kds_tensor_backward(kds_tensor tensor, kds_tensor seed);

/// A tensor of its own with the same values, off the tape; memory is shared. @since 0.1
int32_t kds_tensor_detach(kds_tensor tensor, kds_tensor *out_tensor);

/// From here on this thread records nothing on the tape, until the matching leave; calls nest.
/// @since 0.1
int32_t kds_no_grad_enter(void);

/// Ends the innermost `kds_no_grad_enter` of this thread; without one it does nothing. @since 0.1
int32_t kds_no_grad_leave(void);

/// Runs one operation.
/// @param name             one of `kds_op_names`
/// @param attributes_json  a JSON object; NULL is {}. An unknown key is an error
/// @param inputs           `count` handles, borrowed; may be NULL when `count` is 0
/// @param capacity         places in `outputs`; with fewer than the operation has results, the call
///                         fails and makes nothing
/// @param outputs          gets new handles, `out_count` of them. @since 0.1
int32_t kds_op_apply(
    const char *name, const char *attributes_json, const kds_tensor *inputs, int32_t count,
    int32_t capacity, kds_tensor *outputs, int32_t *out_count);

/// The names of all operations, a JSON array in alphabetical order. @since 0.1
int32_t kds_op_names(int64_t capacity, int64_t *out_needed, char *out_text);

/// All operations as a JSON object: name to `summary`, `min_inputs`, `max_inputs` (null: any number)
/// and `attributes` with their defaults. @since 0.1
int32_t kds_op_describe(int64_t capacity, int64_t *out_needed, char *out_text);

#ifdef __cplusplus
}
#endif
#endif
