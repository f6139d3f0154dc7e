import KDSDetection
import KDSKernels
import KDSNN
import KDSTensor
import KDSTestSupport

/// The weights of tools/fixtures/narrow_models.py: by their places among the sorted names.
func fillByPattern(_ model: Module) throws {
  let state = model.namedParameters() + model.namedBuffers()
  let names = state.map(\.name).filter { !$0.hasSuffix("num_batches_tracked") }.sorted()
  let tensors = Dictionary(uniqueKeysWithValues: state.map { ($0.name, $0.tensor) })
  for (key, name) in names.enumerated() {
    let tensor = tensors[name]!
    let (scale, offset) = patternScale(name, tensor.shape)
    let values = try pattern(tensor.shape, key: UInt64(key + 1), scale: scale, offset: offset)
    tensor.floats.update(from: values.floats, count: values.count)
    tensor.markChanged()
  }
}

private func patternScale(_ name: String, _ shape: [Int]) -> (Float, Float) {
  if shape.count > 1 {
    let inputs = name.contains("conv5_mask") ? shape[0] : shape.dropFirst().reduce(1, *)
    let last = name.contains("bbox_pred") || name.contains("cls_")
    let gain = name.contains("mask_fcn") ? 0.02 : last ? 0.5 : 24
    return (Float((gain / Double(inputs)).squareRoot()), 0)
  }
  let norm = name.contains("bn") || name.contains("downsample")
  if name.hasSuffix("running_var") || (norm && name.hasSuffix("weight")) { return (0.5, 1) }
  return (0.2, 0)
}

/// The two images of tools/fixtures/generate_mask_rcnn.py with their boxes, labels and ellipses.
func ellipseScene(masks: Bool = true) throws -> RawBatch {
  let sizes = [(60, 80), (90, 64)]
  let boxes: [[Float]] = [
    [8, 6, 40, 50, 30.5, 20, 76, 58.25, 2, 30, 20, 44], [4, 8, 60, 80, 20, 40.5, 44, 66],
  ]
  let labels: [[Int64]] = [[1, 2, 3], [3, 1]]
  let images = try sizes.enumerated().map { index, size in
    RawImage(
      pixels: .floats(
        try pattern([3, size.0, size.1], key: UInt64(900 + index), offset: 0.5).values()),
      channels: 3, height: size.0, width: size.1, boxes: boxes[index], labels: labels[index])
  }
  let batch = try RawBatch(images: images, hasTargets: true)
  guard masks else { return batch }
  for (index, size) in sizes.enumerated() {
    let bytes = (0..<boxes[index].count / 4).flatMap {
      ellipse(size, Array(boxes[index][4 * $0..<4 * $0 + 4]))
    }
    try batch.setMasks(bytes, image: index)
  }
  return batch
}

private func ellipse(_ size: (Int, Int), _ box: [Float]) -> [UInt8] {
  (0..<size.0 * size.1).map { pixel in
    let (x, y) = (Float(pixel % size.1) + 0.5, Float(pixel / size.1) + 0.5)
    let u = (x - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    let v = (y - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    return u * u + v * v <= 1 ? 1 : 0
  }
}

/// Sixteen pixels a number, the first in the lowest bit; as the generators pack masks.
func packed(_ masks: [UInt8]) -> [Int64] {
  stride(from: 0, to: masks.count, by: 16).map { start in
    (start..<min(start + 16, masks.count)).reduce(0) { $0 | Int64(masks[$1]) << ($1 - start) }
  }
}

/// The configuration of the narrow models: a pyramid of 8 channels on resnet_small at width 0.125, and
/// every anchor and proposal in the losses.
func narrowConfiguration(_ base: FasterRCNNConfiguration) -> FasterRCNNConfiguration {
  var c = base
  (c.num_classes, c.image_min, c.image_max) = (4, 128, 192)
  (c.backbone.width, c.backbone.output_stride, c.backbone.norm) = (0.125, 16, "frozen_batch")
  c.neck.channels = 8
  c.anchor_sizes = [16, 32, 64, 128]
  (c.rpn.batch, c.rpn.positive_fraction) = (100_000, 1)
  (c.rpn.post_nms_train, c.rpn.post_nms_test) = (60, 40)
  (c.roi.batch, c.roi.positive_fraction, c.roi.hidden) = (100_000, 1, [16, 16])
  (c.roi.score_threshold, c.roi.max_detections) = (0.02, 8)
  return c
}
