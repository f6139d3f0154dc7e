import KDSKernels
import KDSNN
import KDSTensor

/// Predicts a mask per region and class (He et al. 2017): pooled regions, 3×3 convolutions, a transposed
/// convolution to twice the side, and one map of logits per class.
///
/// Registers its parts at the owner under torchvision's names: `mask_head.0.0`, …,
/// `mask_predictor.conv5_mask`, `mask_predictor.mask_fcn_logits`.
public final class MaskBranch {
  public let configuration: MaskConfiguration
  public let classes: Int
  private let pooler: RoIPooler
  private let head = Module()
  private let predictor = Module()
  private var convolutions: [ConvNorm] = []

  /// Side of a mask.
  public var side: Int { 2 * configuration.pool_size }

  /// - Parameter sizes: of the region head beside it; the background gets a map too, as in torchvision.
  public init(
    _ configuration: MaskConfiguration, _ sizes: RoIHeadSizes, in owner: Module,
    _ initializer: Initializer
  ) throws {
    try configuration.check()
    self.configuration = configuration
    classes = sizes.classes
    pooler = try RoIPooler(
      strides: sizes.strides, size: configuration.pool_size, kind: "align",
      samplingRatio: configuration.sampling_ratio)
    owner.child("mask_head", head)
    owner.child("mask_predictor", predictor)
    let norm = try Normalization(configuration.norm, of: "mask")
    var inputs = sizes.channels
    for (index, outputs) in configuration.convs.enumerated() {
      let pair = ConvNorm("0", norm == .none ? nil : "1")
      try head.child("\(index)", Module()).register(
        pair, inputs, outputs, kernel: 3, norm: norm, activation: .relu, initializer)
      convolutions.append(pair)
      inputs = outputs
    }
    predictor.child(
      "conv5_mask",
      try ConvTranspose2d(inputs, configuration.channels, kernel: 2, stride: 2, initializer))
    // Small first logits: a loss of log 2 whatever the number of classes (Detectron2's choice).
    predictor.child(
      "mask_fcn_logits",
      try Conv2d(configuration.channels, classes, kernel: 1, deviation: 0.001, initializer))
  }

  /// (R, K, side, side) of regions (R, 5), R > 0; levels as `RoIPooler` takes them.
  public func logits(_ levels: [Tensor], _ rois: Tensor) throws -> Tensor {
    var hidden = try pooler(levels, rois)
    for (index, pair) in convolutions.enumerated() {
      if let owner = head.childModule("\(index)") { hidden = try pair(hidden, in: owner) }
    }
    hidden = try predictor.layer("conv5_mask")(hidden).relu()
    return try predictor.layer("mask_fcn_logits")(hidden)
  }

  /// Logits (R, side²) of each region's own class.
  private func logits(
    _ levels: [Tensor], _ rois: Tensor, of labels: [Int]
  ) throws -> Tensor {
    // Every step has another number of regions: steady sizes let it meet the primitives that it had before.
    let padding = readsRegionsAlone ? steadyCount(labels.count) - labels.count : 0
    let padded =
      padding > 0 ? try Tensor.concatenated([rois, Tensor.zeros([padding, 5])], axis: 0) : rois
    let area = side * side
    return try logits(levels, padded).plain().reshaped([labels.count + padding, classes * area])
      .gatherColumnGroups(labels + Array(repeating: 0, count: padding), width: area)
      .sliced(axis: 0, to: labels.count)
  }

  /// Whether a region's mask does not depend on the others, as batch normalization in training makes it.
  private var readsRegionsAlone: Bool { configuration.norm != "batch" || !head.isTraining }

  // MARK: - Training

  /// Mean binary cross-entropy of the positives' masks, each in the map of its class; 0 without positives.
  public func loss(
    _ levels: [Tensor], _ regions: SampledRegions, batch: PreparedBatch
  ) throws -> Tensor {
    try checkMasks(batch)
    if regions.positives.isEmpty { return try Tensor.scalar(0) }
    let rois = try regions.rois.gatherRows(regions.positives)
    let found = try logits(levels, rois, of: regions.positives.map { Int(regions.labels[$0]) })
    let wanted = try maskTargets(rois, regions.matchedBoxes, batch: batch, side: side)
    return try found.binaryCrossEntropyWithLogits(wanted)
  }

  private func checkMasks(_ batch: PreparedBatch) throws {
    for (image, labels) in batch.labels.enumerated() where !labels.isEmpty {
      let count = image < batch.masks.count ? batch.masks[image]?.count : nil
      guard let count else {
        throw KDSError.argument(
          "targets[\(image)]: no masks for \(labels.count) boxes; this detector learns from masks")
      }
      guard count == labels.count else {
        throw KDSError.shape("targets[\(image)]: \(count) masks for \(labels.count) boxes")
      }
    }
  }

  // MARK: - Inference

  /// Probabilities (R, side²) of the masks of detections, whose boxes are in input pixels; nil without any.
  public func probabilities(_ levels: [Tensor], _ found: [[Detection]]) throws -> Tensor? {
    let all = found.flatMap { $0 }
    if all.isEmpty { return nil }
    let rois = try regions(
      found.map { list in list.flatMap { [$0.box[0], $0.box[1], $0.box[2], $0.box[3]] } })
    return try logits(levels, rois, of: all.map { Int($0.label) }).sigmoid()
  }
}

/// What masks (P, side²) should be: the ground truth's, cut out and resized by RoIAlign with as many
/// samples as pixels, as in torchvision.
///
/// - Parameters:
///   - rois: (P, 5) in input pixels.
///   - boxes: (P) the box of its image that each region was matched to.
func maskTargets(
  _ rois: Tensor, _ boxes: [Int], batch: PreparedBatch, side: Int
) throws -> Tensor {
  let area = side * side
  let result = try Tensor(uninitialized: [boxes.count, area])
  // One mask at a time: all of a batch as numbers could be gigabytes.
  var rows: [SIMD2<Int>: [Int]] = [:]
  for (row, box) in boxes.enumerated() {
    rows[SIMD2(Int(rois.floats[5 * row]), box), default: []].append(row)
  }
  let grid = RoIGrid(height: side, width: side, spatialScale: 1)
  for (key, members) in rows {
    guard let masks = batch.masks[key[0]] else { continue }
    let mask = try masks.resized(key[1], to: batch.sizes[key[0]])
    let own = try rois.gatherRows(members).copied()
    for row in members.indices { own.floats[5 * row] = 0 }
    let cut = try mask.roiAlign(own, grid: grid)
    for (row, member) in members.enumerated() {
      (result.floats + member * area).update(from: cut.floats + row * area, count: area)
    }
  }
  return result
}
