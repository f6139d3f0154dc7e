import KDSKernels
import KDSNN
import KDSTensor

/// Sizes of the region head after defaults are filled in.
public struct RoIHeadSizes {
  public let channels, poolSize, classes: Int
  /// Strides of the levels that regions are pooled from.
  public let strides: [Int]
  public let hidden: [Int]
  public let dropout: Float
  /// One box per region instead of one per class.
  public var sharesBoxes = false
}

/// Pools regions and classifies them; box offsets per class (Girshick 2015).
///
/// Names follow torchvision: `box_head.fc6`, `box_head.fc7`, …, `box_predictor.cls_score`,
/// `box_predictor.bbox_pred`; with convolutions, `box_head.0.0`, …, `box_head.5`.
public final class RoIHead: Module {
  public let sizes: RoIHeadSizes
  public let configuration: RoIConfiguration
  public let pooler: RoIPooler
  private let boxHead = Module()
  private let predictor = Module()
  private var convolutions: [ConvNorm] = []
  private let names: [String]

  public init(
    sizes: RoIHeadSizes, configuration: RoIConfiguration, _ initializer: Initializer
  ) throws {
    guard configuration.box_std.count == 4, configuration.box_std.allSatisfy({ $0 > 0 }) else {
      throw KDSError.argument("roi.box_std: \(configuration.box_std) must be 4 positive numbers")
    }
    self.sizes = sizes
    self.configuration = configuration
    pooler = try RoIPooler(
      strides: sizes.strides, size: sizes.poolSize, kind: configuration.pool,
      samplingRatio: configuration.sampling_ratio)
    // torchvision counts the flattening between convolutions and layers, and the ReLU behind each.
    let convolutions = configuration.convs.count
    names = sizes.hidden.indices.map {
      convolutions == 0 ? "fc\(6 + $0)" : "\(convolutions + 1 + 2 * $0)"
    }
    super.init()
    child("box_head", boxHead)
    child("box_predictor", predictor)
    let channels = try addConvolutions(initializer)
    var inputs = channels * sizes.poolSize * sizes.poolSize
    for (name, outputs) in zip(names, sizes.hidden) {
      boxHead.child(name, try Linear(inputs, outputs, activation: .relu, initializer))
      inputs = outputs
    }
    // Published deviations: 0.01 for classes, 0.001 for boxes.
    predictor.child(
      "cls_score", try Linear(inputs, sizes.classes, deviation: 0.01, initializer))
    predictor.child(
      "bbox_pred",
      try Linear(
        inputs, sizes.sharesBoxes ? 4 : 4 * sizes.classes, deviation: 0.001, initializer))
  }

  private func addConvolutions(_ initializer: Initializer) throws -> Int {
    let norm = try Normalization(configuration.norm, of: "roi")
    var channels = sizes.channels
    for (index, outputs) in configuration.convs.enumerated() {
      guard (1...1 << 14).contains(outputs) else {
        throw KDSError.argument(
          "roi.convs: \(configuration.convs) must be channels from 1 to 16384")
      }
      let pair = ConvNorm("0", norm == .none ? nil : "1")
      try boxHead.child("\(index)", Module()).register(
        pair, channels, outputs, kernel: 3, norm: norm, activation: .relu, initializer)
      convolutions.append(pair)
      channels = outputs
    }
    return channels
  }

  /// Class logits (R, K) and offsets (R, 4K), or (R, 4) where classes share them, of the regions (R, 5).
  ///
  /// - Parameters:
  ///   - levels: maps (N, C, H, W), fine to coarse; those above `sizes.strides` are not read.
  ///   - dropoutSeed: draws the dropped units in training; nil keeps all.
  public func callAsFunction(
    _ levels: [Tensor], _ rois: Tensor, dropoutSeed: UInt64? = nil
  ) throws -> (logits: Tensor, deltas: Tensor) {
    var pooled = try pooler(levels, rois)
    for (index, pair) in convolutions.enumerated() {
      if let owner = boxHead.childModule("\(index)") { pooled = try pair(pooled, in: owner) }
    }
    var hidden = try pooled.plain().reshaped([
      rois.shape[0], pooled.shape[1] * sizes.poolSize * sizes.poolSize,
    ])
    for (index, name) in names.enumerated() {
      hidden = try boxHead.layer(name)(hidden)
      if isTraining, sizes.dropout > 0, let dropoutSeed {
        hidden = try hidden.dropout(
          probability: sizes.dropout, seed: dropoutSeed, stream: RandomStream.dropout(layer: index))
      }
    }
    return (try predictor.layer("cls_score")(hidden), try predictor.layer("bbox_pred")(hidden))
  }
}
