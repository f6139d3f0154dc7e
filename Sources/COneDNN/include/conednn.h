// A thin face over oneDNN 2 and 3: one way to make a primitive, run it and ask for its layouts. Caching,
// plans and gradients are Swift. Functions return NULL or a non-zero status on refusal.
// Compiled once (not static inline): engine and stream must be the same for every caller.
#ifndef KDS_CONEDNN_SHIM_H
#define KDS_CONEDNN_SHIM_H
#include <dnnl.h>
#include <stdint.h>

#define KDS_DNN_MAX_ARGS 12

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t kds_dnn_md;
typedef const_dnnl_memory_desc_t kds_dnn_const_md;
#else
typedef dnnl_memory_desc_t *kds_dnn_md;
typedef const dnnl_memory_desc_t *kds_dnn_const_md;
#endif

enum { KDS_DNN_FORWARD_TRAINING, KDS_DNN_FORWARD_INFERENCE, KDS_DNN_BACKWARD_DATA,
       KDS_DNN_BACKWARD_WEIGHTS };

/// Geometry of a convolution. Pads are left/top and right/bottom; dilation 1 means dense.
typedef struct {
  int64_t batch, in_channels, in_height, in_width;
  int64_t out_channels, out_height, out_width;
  int64_t groups, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
  int32_t source_block, destination_block;  // 1 = plain NCHW, 8 or 16 = channel-blocked
  int32_t direction, winograd, with_bias, fuse_relu;
  int32_t half;  // bfloat16 maps in NHWC and bfloat16 weights; bias and gradients of weights in float
} kds_dnn_conv_spec;

/// Geometry of a pooling. kind: 0 max, 1 average over valid pixels, 2 average over the whole window.
typedef struct {
  int64_t batch, channels, in_height, in_width, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right;
  int32_t block, kind, direction;
  int32_t half;  // bfloat16 maps in NHWC
} kds_dnn_pool_spec;

/// Batch normalization over (N, C, H, W).
typedef struct {
  int64_t batch, channels, height, width;
  int32_t block, direction, fuse_relu;
  int32_t half;  // bfloat16 maps in NHWC; statistics, scale and shift in float
  float epsilon;
} kds_dnn_norm_spec;

/// A convolution primitive, or NULL when oneDNN has none for the geometry, layout and algorithm.
dnnl_primitive_t kds_dnn_conv(const kds_dnn_conv_spec *s);

dnnl_primitive_t kds_dnn_pool(const kds_dnn_pool_spec *s);

dnnl_primitive_t kds_dnn_norm(const kds_dnn_norm_spec *s);

/// Bytes that an argument of the primitive takes in the layout the primitive wants; 0 if it has none.
int64_t kds_dnn_argument_bytes(const_dnnl_primitive_t primitive, int argument);

/// The implementation's name, for example "jit:avx512_core"; valid while the primitive lives.
const char *kds_dnn_implementation(const_dnnl_primitive_t primitive);

/// A reorder between plain weights (O, I, h, w), grouped if groups > 1, and what `argument` of the
/// primitive wants. `outward` != 0 goes from the primitive's layout back to plain.
dnnl_primitive_t kds_dnn_weights_reorder(const_dnnl_primitive_t primitive, int argument,
                                                       const int64_t *grouped_dims, int outward);

/// 1 when the primitive takes `argument` as plain weights, so that no reorder is needed.
int kds_dnn_weights_are_plain(const_dnnl_primitive_t primitive, int argument,
                                            const int64_t *grouped_dims);

/// 1 when two primitives want `argument` in the same layout, so that one packed copy serves both.
int kds_dnn_same_layout(const_dnnl_primitive_t a, const_dnnl_primitive_t b, int argument);

/// Runs the primitive on the given buffers and waits. Returns a dnnl_status_t.
int kds_dnn_execute(const_dnnl_primitive_t primitive, int count, const int *arguments,
                                  void *const *buffers);

/// Channel block of oneDNN's activations on this processor: 16 with AVX-512, else 8.
int32_t kds_dnn_preferred_block(void);

/// 1 when convolutions have bfloat16 instructions here (AVX512-BF16 or AMX).
int32_t kds_dnn_has_bfloat16(void);

void kds_dnn_version(int32_t *major, int32_t *minor, int32_t *patch);

#endif
