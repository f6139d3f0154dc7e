import KDSDetection
import KDSDistill
import KDSKernels
import KDSNN
import KDSTensor
import Testing

/// Small detectors and drawn scenes: a step takes a few milliseconds.
enum Tiny {
  /// Three classes with background, 48 px images, one anchor shape in three sizes.
  ///
  /// Group normalization unless told: nothing but parameters then changes in a step.
  static func configuration(
    width: Double = 0.125, scale: Float = 1, norm: String = "group",
    change: (inout FasterRCNNConfiguration) -> Void = { _ in }
  ) -> FasterRCNNConfiguration {
    var c = FasterRCNNConfiguration()
    c.num_classes = 3
    c.image_min = Int(48 * scale)
    c.image_max = Int(64 * scale)
    c.backbone.width = width
    c.backbone.norm = norm
    c.anchor_sizes = [8 * scale, 14 * scale, 24 * scale]
    c.anchor_ratios = [1]
    c.rpn.channels = 8
    c.rpn.batch = 32
    c.rpn.min_size = 2
    c.rpn.pre_nms_train = 60
    c.rpn.post_nms_train = 20
    c.roi.batch = 16
    c.roi.pool_size = 3
    c.roi.hidden = [16]
    change(&c)
    return c
  }

  static func detector(
    _ seed: UInt64, width: Double = 0.125, scale: Float = 1, norm: String = "group",
    change: (inout FasterRCNNConfiguration) -> Void = { _ in }
  ) throws -> FasterRCNN {
    try FasterRCNN(
      configuration(width: width, scale: scale, norm: norm, change: change), seed: seed)
  }

  /// A wider detector with heads that say something: fresh heads are almost 0 everywhere.
  static func teacher(
    _ seed: UInt64 = 100, width: Double = 0.25, scale: Float = 1,
    change: (inout FasterRCNNConfiguration) -> Void = { _ in }
  ) throws -> FasterRCNN {
    let teacher = try detector(seed, width: width, scale: scale, change: change)
    for (name, tensor) in teacher.namedParameters()
    where name.contains("predictor") && name.hasSuffix("weight") {
      for index in 0..<tensor.count { tensor.floats[index] *= 20 }
      tensor.markChanged()
    }
    return teacher
  }

  /// Noise with a filled rectangle for each box. Seeds differ in everything.
  static func image(_ seed: UInt64, height: Int = 48, width: Int = 56, boxes: Int = 2) -> RawImage {
    var random = CounterRandom(seed: seed, stream: 7)
    var pixels = (0..<height * width * 3).map { _ in UInt8(random.below(60)) }
    var (corners, labels): ([Float], [Int64]) = ([], [])
    for _ in 0..<boxes {
      let (w, h) = (8 + random.below(14), 8 + random.below(14))
      let (x, y) = (random.below(width - w), random.below(height - h))
      let label = 1 + random.below(2)
      for row in y..<y + h {
        for column in x..<x + w { pixels[(row * width + column) * 3 + label] = 220 }
      }
      corners += [Float(x), Float(y), Float(x + w), Float(y + h)]
      labels.append(Int64(label))
    }
    return RawImage(
      pixels: .bytes(pixels), channels: 3, height: height, width: width, boxes: corners,
      labels: labels)
  }

  static func batch(_ seed: UInt64, boxes: Int = 2) throws -> RawBatch {
    try RawBatch(
      images: [image(2 * seed, boxes: boxes), image(2 * seed + 1, boxes: boxes)], hasTargets: true)
  }

  static func options(
    _ parts: [Chen2017Configuration] = [], optimizer: String = "sgd", lr: Double = 0.02
  ) -> TrainerOptions {
    var options = TrainerOptions()
    options.common.optimizer.name = optimizer
    options.common.optimizer.lr = lr
    options.common.seed = 5
    options.parts = parts
    return options
  }
}

/// The method with changes to its defaults.
func chen(_ change: (inout Chen2017Configuration) -> Void = { _ in }) -> Chen2017Configuration {
  var configuration = Chen2017Configuration()
  change(&configuration)
  return configuration
}

/// Parameters and buffers as bits, so that equality means equality.
func bits(_ module: Module) throws -> [String: [UInt32]] {
  try bits(module.namedParameters() + module.namedBuffers())
}

func bits(_ tensors: [(name: String, tensor: Tensor)]) throws -> [String: [UInt32]] {
  try Dictionary(
    uniqueKeysWithValues: tensors.map { ($0.name, try $0.tensor.values().map(\.bitPattern)) })
}

/// Names whose values differ; empty when all are the same.
func differences(_ a: [String: [UInt32]], _ b: [String: [UInt32]]) -> [String] {
  Set(a.keys).union(b.keys).filter { a[$0] != b[$0] }.sorted()
}

extension Trainer {
  /// A number of the last step; NaN when there is none of that name.
  func metric(_ name: String) -> Double { metrics.first { $0.name == name }?.value ?? .nan }
}

/// Runs steps on scenes numbered from `first`.
func train(_ trainer: Trainer, steps: Int, from first: Int = 0) throws {
  for step in first..<first + steps { try trainer.step(Tiny.batch(UInt64(step))) }
}
