#include "conednn.h"
#include <stdlib.h>
#include <string.h>

static dnnl_engine_t kds_dnn_engine(void) {
  static dnnl_engine_t engine = NULL;
  if (!engine) dnnl_engine_create(&engine, dnnl_cpu, 0);
  return engine;
}

static dnnl_stream_t kds_dnn_stream(void) {
  static _Thread_local dnnl_stream_t stream = NULL;
  if (!stream) dnnl_stream_create(&stream, kds_dnn_engine(), dnnl_stream_default_flags);
  return stream;
}

static kds_dnn_md kds_dnn_md_typed(int n, const int64_t *dims, dnnl_data_type_t type,
                                   dnnl_format_tag_t tag) {
#if DNNL_VERSION_MAJOR >= 3
  dnnl_memory_desc_t md = NULL;
  dnnl_memory_desc_create_with_tag(&md, n, dims, type, tag);
  return md;
#else
  dnnl_memory_desc_t *md = (dnnl_memory_desc_t *)calloc(1, sizeof *md);
  if (dnnl_memory_desc_init_by_tag(md, n, dims, type, tag) != dnnl_success) {
    free(md);
    return NULL;
  }
  return md;
#endif
}

static kds_dnn_md kds_dnn_md_make(int n, const int64_t *dims, dnnl_format_tag_t tag) {
  return kds_dnn_md_typed(n, dims, dnnl_f32, tag);
}

static void kds_dnn_md_free(kds_dnn_md md) {
#if DNNL_VERSION_MAJOR >= 3
  if (md) dnnl_memory_desc_destroy(md);
#else
  free(md);
#endif
}

static dnnl_format_tag_t kds_dnn_activation_tag(int32_t block) {
  return block == 16 ? dnnl_nChw16c : block == 8 ? dnnl_nChw8c : dnnl_nchw;
}

/// A feature map: float in the layout of `block`, or bfloat16 in NHWC.
static kds_dnn_md kds_dnn_map(const int64_t *dims, int32_t block, int32_t half) {
  if (half) return kds_dnn_md_typed(4, dims, dnnl_bf16, dnnl_nhwc);
  return kds_dnn_md_make(4, dims, kds_dnn_activation_tag(block));
}

/// Attributes of every primitive: the caller brings the scratchpad. By default oneDNN keeps one per
/// thread, sized when a primitive is made, and a primitive that runs on another thread finds none.
static dnnl_primitive_attr_t kds_dnn_attr(void) {
  dnnl_primitive_attr_t attr = NULL;
  if (dnnl_primitive_attr_create(&attr) != dnnl_success) return NULL;
  dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
  return attr;
}

static dnnl_primitive_t kds_dnn_finish(dnnl_primitive_desc_t pd) {
  dnnl_primitive_t primitive = NULL;
  if (!pd) return NULL;
  if (dnnl_primitive_create(&primitive, pd) != dnnl_success) primitive = NULL;
  dnnl_primitive_desc_destroy(pd);
  return primitive;
}

static dnnl_primitive_desc_t kds_dnn_conv_desc(const kds_dnn_conv_spec *s, int32_t direction,
                                                      const_dnnl_primitive_desc_t hint) {
  int64_t src_dims[4] = {s->batch, s->in_channels, s->in_height, s->in_width};
  int64_t dst_dims[4] = {s->batch, s->out_channels, s->out_height, s->out_width};
  int64_t grouped[5] = {s->groups, s->out_channels / s->groups, s->in_channels / s->groups,
                        s->kernel_h, s->kernel_w};
  int64_t strides[2] = {s->stride_h, s->stride_w};
  int64_t dilates[2] = {s->dilation_h - 1, s->dilation_w - 1};
  int64_t before[2] = {s->pad_top, s->pad_left}, after[2] = {s->pad_bottom, s->pad_right};
  int64_t bias_dims[1] = {s->out_channels};
  int with_groups = s->groups > 1;
  kds_dnn_md src = kds_dnn_map(src_dims, s->source_block, s->half);
  kds_dnn_md dst = kds_dnn_map(dst_dims, s->destination_block, s->half);
  // Gradients of weights leave in float, so that steps smaller than a bfloat16 digit add up.
  dnnl_data_type_t type = s->half && direction != KDS_DNN_BACKWARD_WEIGHTS ? dnnl_bf16 : dnnl_f32;
  kds_dnn_md weights = kds_dnn_md_typed(with_groups ? 5 : 4, with_groups ? grouped : grouped + 1,
                                        type, dnnl_format_tag_any);
  kds_dnn_md bias = s->with_bias ? kds_dnn_md_make(1, bias_dims, dnnl_x) : NULL;
  dnnl_alg_kind_t alg = s->winograd ? dnnl_convolution_winograd : dnnl_convolution_direct;
  dnnl_prop_kind_t prop =
      direction == KDS_DNN_FORWARD_INFERENCE ? dnnl_forward_inference : dnnl_forward_training;
  dnnl_primitive_attr_t attr = kds_dnn_attr();
  if (s->fuse_relu && direction <= KDS_DNN_FORWARD_INFERENCE) {
    dnnl_post_ops_t ops = NULL;
    dnnl_post_ops_create(&ops);
#if DNNL_VERSION_MAJOR >= 3
    dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, 0.f, 0.f);
#else
    dnnl_post_ops_append_eltwise(ops, 1.f, dnnl_eltwise_relu, 0.f, 0.f);
#endif
    dnnl_primitive_attr_set_post_ops(attr, ops);
    dnnl_post_ops_destroy(ops);
  }
  dnnl_primitive_desc_t pd = NULL;
  dnnl_engine_t engine = kds_dnn_engine();
#if DNNL_VERSION_MAJOR >= 3
  if (direction == KDS_DNN_BACKWARD_DATA)
    dnnl_convolution_backward_data_primitive_desc_create(&pd, engine, alg, src, weights, dst, strides,
                                                         dilates, before, after, hint, attr);
  else if (direction == KDS_DNN_BACKWARD_WEIGHTS)
    dnnl_convolution_backward_weights_primitive_desc_create(
        &pd, engine, alg, src, weights, bias, dst, strides, dilates, before, after, hint, attr);
  else
    dnnl_convolution_forward_primitive_desc_create(&pd, engine, prop, alg, src, weights, bias, dst,
                                                   strides, dilates, before, after, attr);
#else
  dnnl_convolution_desc_t desc;
  dnnl_status_t status;
  if (direction == KDS_DNN_BACKWARD_DATA)
    status = dnnl_dilated_convolution_backward_data_desc_init(&desc, alg, src, weights, dst, strides,
                                                              dilates, before, after);
  else if (direction == KDS_DNN_BACKWARD_WEIGHTS)
    status = dnnl_dilated_convolution_backward_weights_desc_init(
        &desc, alg, src, weights, bias, dst, strides, dilates, before, after);
  else
    status = dnnl_dilated_convolution_forward_desc_init(&desc, prop, alg, src, weights, bias, dst,
                                                        strides, dilates, before, after);
  if (status == dnnl_success) dnnl_primitive_desc_create(&pd, &desc, attr, engine, hint);
#endif
  dnnl_primitive_attr_destroy(attr);
  kds_dnn_md_free(src);
  kds_dnn_md_free(dst);
  kds_dnn_md_free(weights);
  kds_dnn_md_free(bias);
  return pd;
}

dnnl_primitive_t kds_dnn_conv(const kds_dnn_conv_spec *s) {
  if (s->direction <= KDS_DNN_FORWARD_INFERENCE)
    return kds_dnn_finish(kds_dnn_conv_desc(s, s->direction, NULL));
  kds_dnn_conv_spec forward = *s;
  forward.with_bias = 0;
  dnnl_primitive_desc_t hint = kds_dnn_conv_desc(&forward, KDS_DNN_FORWARD_TRAINING, NULL);
  if (!hint && s->winograd) {
    forward.winograd = 0;
    hint = kds_dnn_conv_desc(&forward, KDS_DNN_FORWARD_TRAINING, NULL);
  }
  if (!hint) return NULL;
  dnnl_primitive_desc_t pd = kds_dnn_conv_desc(s, s->direction, hint);
  dnnl_primitive_t primitive = kds_dnn_finish(pd);
  dnnl_primitive_desc_destroy(hint);
  return primitive;
}

static dnnl_primitive_desc_t kds_dnn_pool_desc(const kds_dnn_pool_spec *s, int32_t direction,
                                                      const_dnnl_primitive_desc_t hint) {
  int64_t src_dims[4] = {s->batch, s->channels, s->in_height, s->in_width};
  int64_t dst_dims[4] = {s->batch, s->channels, s->out_height, s->out_width};
  int64_t kernel[2] = {s->kernel_h, s->kernel_w}, strides[2] = {s->stride_h, s->stride_w};
  int64_t before[2] = {s->pad_top, s->pad_left}, after[2] = {s->pad_bottom, s->pad_right};
  kds_dnn_md src = kds_dnn_map(src_dims, s->block, s->half);
  kds_dnn_md dst = kds_dnn_map(dst_dims, s->block, s->half);
  dnnl_alg_kind_t alg = s->kind == 0   ? dnnl_pooling_max
                        : s->kind == 1 ? dnnl_pooling_avg_exclude_padding
                                       : dnnl_pooling_avg_include_padding;
  dnnl_prop_kind_t prop =
      direction == KDS_DNN_FORWARD_INFERENCE ? dnnl_forward_inference : dnnl_forward_training;
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_attr_t attr = kds_dnn_attr();
#if DNNL_VERSION_MAJOR >= 3
  int64_t dilation[2] = {0, 0};
  if (direction == KDS_DNN_BACKWARD_DATA)
    dnnl_pooling_backward_primitive_desc_create(&pd, kds_dnn_engine(), alg, src, dst, strides, kernel,
                                                dilation, before, after, hint, attr);
  else
    dnnl_pooling_forward_primitive_desc_create(&pd, kds_dnn_engine(), prop, alg, src, dst, strides,
                                               kernel, dilation, before, after, attr);
#else
  dnnl_pooling_desc_t desc;
  dnnl_status_t status =
      direction == KDS_DNN_BACKWARD_DATA
          ? dnnl_pooling_backward_desc_init(&desc, alg, src, dst, strides, kernel, before, after)
          : dnnl_pooling_forward_desc_init(&desc, prop, alg, src, dst, strides, kernel, before, after);
  if (status == dnnl_success) dnnl_primitive_desc_create(&pd, &desc, attr, kds_dnn_engine(), hint);
#endif
  dnnl_primitive_attr_destroy(attr);
  kds_dnn_md_free(src);
  kds_dnn_md_free(dst);
  return pd;
}

dnnl_primitive_t kds_dnn_pool(const kds_dnn_pool_spec *s) {
  if (s->direction <= KDS_DNN_FORWARD_INFERENCE)
    return kds_dnn_finish(kds_dnn_pool_desc(s, s->direction, NULL));
  dnnl_primitive_desc_t hint = kds_dnn_pool_desc(s, KDS_DNN_FORWARD_TRAINING, NULL);
  if (!hint) return NULL;
  dnnl_primitive_t primitive = kds_dnn_finish(kds_dnn_pool_desc(s, KDS_DNN_BACKWARD_DATA, hint));
  dnnl_primitive_desc_destroy(hint);
  return primitive;
}

static dnnl_primitive_desc_t kds_dnn_norm_desc(const kds_dnn_norm_spec *s, int32_t direction,
                                                      const_dnnl_primitive_desc_t hint) {
  int64_t dims[4] = {s->batch, s->channels, s->height, s->width};
  kds_dnn_md data = kds_dnn_map(dims, s->block, s->half);
  unsigned flags = dnnl_use_scale | dnnl_use_shift | (s->fuse_relu ? dnnl_fuse_norm_relu : 0);
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_attr_t attr = kds_dnn_attr();
#if DNNL_VERSION_MAJOR >= 3
  if (direction >= KDS_DNN_BACKWARD_DATA)
    dnnl_batch_normalization_backward_primitive_desc_create(
        &pd, kds_dnn_engine(), dnnl_backward, data, data, data, s->epsilon, flags, hint, attr);
  else
    dnnl_batch_normalization_forward_primitive_desc_create(
        &pd, kds_dnn_engine(), dnnl_forward_training, data, data, s->epsilon, flags, attr);
#else
  dnnl_batch_normalization_desc_t desc;
  dnnl_status_t status = direction >= KDS_DNN_BACKWARD_DATA
                             ? dnnl_batch_normalization_backward_desc_init(
                                   &desc, dnnl_backward, data, data, s->epsilon, flags)
                             : dnnl_batch_normalization_forward_desc_init(
                                   &desc, dnnl_forward_training, data, s->epsilon, flags);
  if (status == dnnl_success) dnnl_primitive_desc_create(&pd, &desc, attr, kds_dnn_engine(), hint);
#endif
  dnnl_primitive_attr_destroy(attr);
  kds_dnn_md_free(data);
  return pd;
}

dnnl_primitive_t kds_dnn_norm(const kds_dnn_norm_spec *s) {
  if (s->direction <= KDS_DNN_FORWARD_INFERENCE)
    return kds_dnn_finish(kds_dnn_norm_desc(s, s->direction, NULL));
  dnnl_primitive_desc_t hint = kds_dnn_norm_desc(s, KDS_DNN_FORWARD_TRAINING, NULL);
  if (!hint) return NULL;
  dnnl_primitive_t primitive = kds_dnn_finish(kds_dnn_norm_desc(s, s->direction, hint));
  dnnl_primitive_desc_destroy(hint);
  return primitive;
}

static kds_dnn_const_md kds_dnn_argument_md(const_dnnl_primitive_t primitive, int argument) {
  const_dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_get_primitive_desc(primitive, &pd);
  kds_dnn_const_md md = dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, argument);
  // Reorders of oneDNN 2 answer only to the query by role.
  if (md && dnnl_memory_desc_get_size(md) > 0) return md;
  if (argument == DNNL_ARG_FROM) return dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
  if (argument == DNNL_ARG_TO) return dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
  return md;
}

int64_t kds_dnn_argument_bytes(const_dnnl_primitive_t primitive, int argument) {
  kds_dnn_const_md md = kds_dnn_argument_md(primitive, argument);
  return md ? (int64_t)dnnl_memory_desc_get_size(md) : 0;
}

const char *kds_dnn_implementation(const_dnnl_primitive_t primitive) {
  const_dnnl_primitive_desc_t pd = NULL;
  const char *name = "";
  dnnl_primitive_get_primitive_desc(primitive, &pd);
  dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name);
  return name;
}

dnnl_primitive_t kds_dnn_weights_reorder(const_dnnl_primitive_t primitive, int argument,
                                                       const int64_t *grouped_dims, int outward) {
  int with_groups = grouped_dims[0] > 1;
  kds_dnn_const_md inner = kds_dnn_argument_md(primitive, argument);
  kds_dnn_md plain = kds_dnn_md_make(with_groups ? 5 : 4, with_groups ? grouped_dims : grouped_dims + 1,
                                     with_groups ? dnnl_goihw : dnnl_oihw);
  dnnl_primitive_desc_t pd = NULL;
  dnnl_engine_t engine = kds_dnn_engine();
  dnnl_primitive_attr_t attr = kds_dnn_attr();
  if (outward)
    dnnl_reorder_primitive_desc_create(&pd, inner, engine, plain, engine, attr);
  else
    dnnl_reorder_primitive_desc_create(&pd, plain, engine, inner, engine, attr);
  dnnl_primitive_attr_destroy(attr);
  kds_dnn_md_free(plain);
  return kds_dnn_finish(pd);
}

int kds_dnn_weights_are_plain(const_dnnl_primitive_t primitive, int argument,
                                            const int64_t *grouped_dims) {
  int with_groups = grouped_dims[0] > 1;
  kds_dnn_md plain = kds_dnn_md_make(with_groups ? 5 : 4, with_groups ? grouped_dims : grouped_dims + 1,
                                     with_groups ? dnnl_goihw : dnnl_oihw);
  int equal = dnnl_memory_desc_equal(kds_dnn_argument_md(primitive, argument), plain);
  kds_dnn_md_free(plain);
  return equal;
}

int kds_dnn_same_layout(const_dnnl_primitive_t a, const_dnnl_primitive_t b, int argument) {
  return dnnl_memory_desc_equal(kds_dnn_argument_md(a, argument), kds_dnn_argument_md(b, argument));
}

int kds_dnn_execute(const_dnnl_primitive_t primitive, int count, const int *arguments,
                                  void *const *buffers) {
  dnnl_exec_arg_t list[KDS_DNN_MAX_ARGS];
  int made = 0;
  dnnl_status_t status = count <= KDS_DNN_MAX_ARGS ? dnnl_success : dnnl_invalid_arguments;
  for (; status == dnnl_success && made < count; made++) {
    list[made].arg = arguments[made];
    list[made].memory = NULL;
    status = dnnl_memory_create(&list[made].memory, kds_dnn_argument_md(primitive, arguments[made]),
                                kds_dnn_engine(), buffers[made]);
  }
  if (status == dnnl_success)
    status = dnnl_primitive_execute(primitive, kds_dnn_stream(), count, list);
  if (status == dnnl_success) status = dnnl_stream_wait(kds_dnn_stream());
  for (int index = 0; index < made; index++)
    if (list[index].memory) dnnl_memory_destroy(list[index].memory);
  return status;
}

int32_t kds_dnn_preferred_block(void) {
  dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  return (isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core ? 16 : 8;
}

int32_t kds_dnn_has_bfloat16(void) {
  dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  return (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

void kds_dnn_version(int32_t *major, int32_t *minor, int32_t *patch) {
  const dnnl_version_t *version = dnnl_version();
  *major = version->major;
  *minor = version->minor;
  *patch = version->patch;
}
