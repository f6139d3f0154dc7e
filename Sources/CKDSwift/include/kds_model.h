// Detectors, batches of images, detections. Every function returns a status; handles have one release,
// and releasing NULL does nothing. Buffers of the caller are borrowed for the call only.
#ifndef KDS_MODEL_H
#define KDS_MODEL_H
#include <stdint.h>
#include "kds_tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kds_detector_s *kds_detector;
typedef struct kds_batch_s *kds_batch;
typedef struct kds_detections_s *kds_detections;
/// An ordered map from names to tensors: losses, features, weights. The tensors are live, not copies.
typedef struct kds_tensor_map_s *kds_tensor_map;

/// Number of entries. @since 0.1
int32_t kds_tensor_map_count(kds_tensor_map map, int64_t *out_count);
/// All names as one JSON array, by the two-call convention. @since 0.1
int32_t kds_tensor_map_names(kds_tensor_map map, int64_t capacity, int64_t *out_needed, char *out_text);
/// The tensor of an entry; the caller releases the handle. @since 0.1
int32_t kds_tensor_map_tensor(kds_tensor_map map, int64_t index, kds_tensor *out_tensor);
int32_t kds_tensor_map_release(kds_tensor_map map);

/// Builds a detector from a JSON configuration; missing keys take defaults, unknown ones are errors.
/// `seed` draws the initial weights. @since 0.1
int32_t kds_detector_create(const char *configuration_json, int64_t seed, kds_detector *out_detector);
int32_t kds_detector_release(kds_detector detector);
/// The full configuration (defaults filled in, surgery included) that rebuilds the detector. @since 0.1
int32_t kds_detector_configuration(kds_detector detector, int64_t capacity, int64_t *out_needed,
                                   char *out_text);
/// Names and live tensors of all parameters, then all buffers. @since 0.1
int32_t kds_detector_state(kds_detector detector, kds_tensor_map *out_map);
/// Number of entries of the state that are parameters; they come first. @since 0.1
int32_t kds_detector_parameter_count(kds_detector detector, int64_t *out_count);
/// Copies values into a parameter or buffer of their shape and type; whole numbers must be those it has.
/// @since 0.1
int32_t kds_detector_load(kds_detector detector, const char *name, kds_tensor value);
/// Training (1) or evaluation (0): batch normalization and dropout. @since 0.1
int32_t kds_detector_set_training(kds_detector detector, int32_t training);
/// Whether parameters learn; stages frozen by configuration stay frozen. @since 0.1
int32_t kds_detector_set_requires_grad(kds_detector detector, int32_t learns);
int32_t kds_detector_clear_gradients(kds_detector detector);
/// Taps as a JSON array of {name, channels, stride, kind}. @since 0.1
int32_t kds_detector_taps(kds_detector detector, int64_t capacity, int64_t *out_needed, char *out_text);
/// The anchors of every level, fine to coarse, for a network's input (scaled and padded) of this size:
/// (cells * anchors, 4) x1 y1 x2 y2, cells row by row, under the levels' names. @since 0.1
int32_t kds_detector_anchors(kds_detector detector, int64_t height, int64_t width,
                             kds_tensor_map *out_anchors);
/// Layers as JSON: [{name, layer, parameters}]. @since 0.1
int32_t kds_detector_summary(kds_detector detector, int64_t capacity, int64_t *out_needed,
                             char *out_text);
/// FLOPs (two per multiply-add) of one forward pass on an image of this size, all proposals included.
int32_t kds_detector_flops(kds_detector detector, int64_t height, int64_t width, double *out_flops);
/// Tucker / SVD factorised copy of a detector (options: ranks, flops, layers, height, width); a JSON
/// report by the two-call convention is read with kds_detector_surgery_report. @since 0.1
int32_t kds_detector_tucker(kds_detector detector, const char *options_json, kds_detector *out_detector);
/// Copy of a detector with convolutions of signs in backbone and neck (options: keep, settings); the
/// report as of kds_detector_tucker. @since 0.1
int32_t kds_detector_binarize(kds_detector detector, const char *options_json, kds_detector *out_detector);
/// Copy of a detector with quantizers behind the maps that heads read (options: step, form, layer); the
/// report as of kds_detector_tucker. @since 0.1
int32_t kds_detector_quantize_features(kds_detector detector, const char *options_json,
                                       kds_detector *out_detector);
int32_t kds_detector_surgery_report(kds_detector detector, int64_t capacity, int64_t *out_needed,
                                    char *out_text);

/// Copies images and, if `box_counts` is not NULL, their targets.
///
/// `dtypes[i]`: 0 = float32 (C, H, W) in [0, 1]; 2 = uint8 (H, W, C). `channels[i]` is C.
/// `boxes` holds all images' boxes one after the other, xyxy pixels of the original image, `labels`
/// their classes (1 ... num_classes - 1). NaN, values outside the image, empty boxes are errors that
/// name image and box. @since 0.1
int32_t kds_batch_create(int32_t count, const void *const *images, const int32_t *dtypes,
                         const int64_t *channels, const int64_t *heights, const int64_t *widths,
                         const int64_t *box_counts, const float *boxes, const int64_t *labels,
                         kds_batch *out_batch);
int32_t kds_batch_release(kds_batch batch);
/// Adds the masks of one image's objects: `count` = M * H * W bytes (uint8), 0 outside and 1 inside, in
/// the image's own pixels, M its number of boxes. Before the batch is used. @since 0.1
int32_t kds_batch_set_masks(kds_batch batch, int64_t image, const void *masks, int64_t count);

/// The training losses as scalars on the tape, by name. `seed` draws samples and dropout. @since 0.1
int32_t kds_detector_losses(kds_detector detector, kds_batch batch, int64_t seed,
                            kds_tensor_map *out_losses);
/// All taps of a forward pass on these images. @since 0.1
int32_t kds_detector_features(kds_detector detector, kds_batch batch, kds_tensor_map *out_features);
/// The maps of backbone and neck alone; the heads do not run. @since 0.1
int32_t kds_detector_maps(kds_detector detector, kds_batch batch, kds_tensor_map *out_maps);
/// The rest of a one-stage detector's head from inside a tower, on the tape; its weights are constants.
/// `branch` is "classification" or "regression"; `start` convolutions of its tower are done: `features`
/// (N, C, H, W) is the level's map for 0, else the tap of convolution start - 1 (before its ReLU).
/// `level` counts from the finest. Gives "class_logits", or the taps of boxes and centerness. @since 0.1
int32_t kds_detector_head_from(kds_detector detector, const char *branch, int64_t start, int64_t level,
                               kds_tensor features, kds_tensor_map *out_outputs);
/// Detections of these images, boxes in pixels of the originals. Options: {"score_threshold": 0.05,
/// "nms_threshold": 0.5, "max_detections": 100}. Runs without tape, in evaluation mode. @since 0.1
int32_t kds_detector_predict(kds_detector detector, kds_batch batch, const char *options_json,
                             kds_detections *out_detections);
/// Detections per image; `out_counts` has one slot per image of the batch. @since 0.1
int32_t kds_detections_counts(kds_detections detections, int64_t capacity, int64_t *out_counts);
/// All images' detections one after the other, best score first in each. @since 0.1
int32_t kds_detections_read(kds_detections detections, int64_t capacity, float *out_boxes,
                            float *out_scores, int64_t *out_labels);
/// The masks of one image's detections, in their order: N * H * W bytes (uint8) of 0 and 1 in the image's
/// own pixels. `out_needed` gives that number, 0 when the detector finds no masks; nothing is written
/// unless `capacity` is as large. @since 0.1
int32_t kds_detections_masks(kds_detections detections, int64_t image, int64_t capacity,
                             int64_t *out_needed, void *out_masks);
int32_t kds_detections_release(kds_detections detections);

#ifdef __cplusplus
}
#endif
#endif
