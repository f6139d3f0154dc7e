import KDSDetection
import KDSKernels
import KDSNN
import KDSTensor

/// A detector of a few thousand parameters on images of 32 x 40 pixels, stride 8.
func tinyConfiguration(
  _ change: (inout FasterRCNNConfiguration) -> Void = { _ in }
) -> FasterRCNNConfiguration {
  var c = FasterRCNNConfiguration()
  c.num_classes = 3
  c.class_names = ["background", "disc", "square"]
  c.image_min = 32
  c.image_max = 64
  c.backbone.width = 0.125
  c.anchor_sizes = [8, 16]
  c.anchor_ratios = [0.5, 1]
  c.rpn.channels = 8
  c.rpn.batch = 24
  c.rpn.min_size = 2
  c.rpn.post_nms_train = 20
  c.rpn.post_nms_test = 20
  c.roi.batch = 12
  c.roi.pool_size = 2
  c.roi.hidden = [12]
  change(&c)
  return c
}

/// Fresh heads say almost nothing; these speak up, so that gradients have a size.
func tinyDetector(
  seed: UInt64 = 1, _ change: (inout FasterRCNNConfiguration) -> Void = { _ in }
) throws -> FasterRCNN {
  let model = try FasterRCNN(tinyConfiguration(change), seed: seed)
  for (name, tensor) in model.namedParameters()
  where name.hasSuffix("weight") && (name.hasPrefix("rpn") || name.contains("predictor")) {
    let factor: Float = name.contains("predictor.bbox") ? 100 : 10
    for index in 0..<tensor.count { tensor.floats[index] *= factor }
    tensor.markChanged()
  }
  return model
}

/// Two noisy images with two boxes each.
func tinyBatch(seed: UInt64 = 1, height: Int = 32, width: Int = 40) throws -> RawBatch {
  let images = (0..<2).map { image -> RawImage in
    var random = CounterRandom(seed: seed, stream: UInt64(image))
    let pixels = (0..<3 * height * width).map { _ in random.uniform() }
    let shift = Float(3 * image)
    return RawImage(
      pixels: .floats(pixels), channels: 3, height: height, width: width,
      boxes: [1 + shift, 2, 12 + shift, 16, 14, 10 + shift, 29, 25 + shift], labels: [1, 2])
  }
  return try RawBatch(images: images, hasTargets: true)
}
