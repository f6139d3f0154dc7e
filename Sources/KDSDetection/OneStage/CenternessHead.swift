import KDSKernels
import KDSNN
import KDSTensor

/// The head of FCOS and of ATSS: classes, boxes, and how central every place lies in its object.
public final class CenternessHead: DenseHead {
  /// What the two differ in.
  private struct Rules {
    var assigner: any DenseAssigner
    var alpha, gamma: Float
    /// Boxes count by their centerness, and their sum is divided by that of all.
    var weighsBoxes = false
    var boxWeight: Float = 1
    var centernessWeight: Float = 1
  }
  private let rules: Rules

  /// FCOS as torchvision has it (Tian et al. 2019, 2020): centre sampling, distances in anchor sizes
  /// behind a ReLU, centerness in the regression branch.
  public init(
    _ configuration: FCOSHeadConfiguration, _ place: Place, _ initializer: Initializer
  ) throws {
    try onePerPlace("fcos", place)
    rules = Rules(
      assigner: CenterAssigner(rule: CenterRule(radius: configuration.center_radius)),
      alpha: configuration.focal_alpha, gamma: configuration.focal_gamma)
    try super.init(
      configuration, place, coding: .distances, scoring: .root, flat: true, boxActivation: .relu,
      initializer)
  }

  /// ATSS (Zhang et al. 2020): offsets of one anchor a place with deviations 0.1, 0.1, 0.2, 0.2.
  public init(
    _ configuration: ATSSHeadConfiguration, _ place: Place, _ initializer: Initializer
  ) throws {
    try onePerPlace("atss", place)
    rules = Rules(
      assigner: ATSSAssigner(candidates: configuration.assigner_candidates),
      alpha: configuration.focal_alpha, gamma: configuration.focal_gamma, weighsBoxes: true,
      boxWeight: configuration.box_weight, centernessWeight: configuration.centerness_weight)
    try super.init(
      configuration, place, coding: .deltas(SIMD4(10, 10, 5, 5)), scoring: .product, scaled: true,
      initializer)
  }

  override func targets(_ grid: DenseGrid, _ batch: PreparedBatch) throws -> DenseTargets {
    try rules.assigner.assign(grid, batch: batch)
  }

  /// With P positives in the batch and their centerness c:
  ///
  ///     classification  = Σ focal / max(1, P)
  ///     bbox_regression = w Σ (1 - GIoU) / max(1, P)           FCOS
  ///                       w Σ c (1 - GIoU) / max(1, Σ c)       ATSS
  ///     bbox_ctrness    = w' Σ BCE(logit, c) / max(1, P)
  override func losses(
    _ maps: [DenseMaps], _ targets: DenseTargets
  ) throws -> [NamedTensor] {
    let logits = try flattenMaps(maps.map(\.logits), columns: classes)
    let focal = try logits.sigmoidFocal(
      labels: targets.labels, factors: [targets.factor], alpha: rules.alpha, gamma: rules.gamma)
    let codes = try flattenMaps(maps.map(\.boxes), columns: 4).gatherRows(targets.positives)
    let central = try flattenMaps(maps.compactMap(\.centerness), columns: 1)
      .gatherRows(targets.positives)
    return [
      ("classification", focal), ("bbox_regression", try boxLoss(codes, targets)),
      ("bbox_ctrness", try centernessLoss(central, targets)),
    ]
  }

  private func boxLoss(_ codes: Tensor, _ targets: DenseTargets) throws -> Tensor {
    let count = targets.positives.count
    if count == 0 { return try codes.summed() }
    let boxes = try coding.decoded(codes, anchors: targets.anchors, strides: targets.strides)
    let weights = rules.weighsBoxes ? targets.centerness : nil
    let divisor = weights.map { max(1, $0.reduce(0, +)) } ?? Float(count)
    return try boxes.giou(
      Tensor(targets.boxes, shape: [count, 4]),
      weights: weights.map { try Tensor($0, shape: [count]) }, reduction: .sum
    ).multiplied(by: rules.boxWeight / divisor)
  }

  private func centernessLoss(_ logits: Tensor, _ targets: DenseTargets) throws -> Tensor {
    let goals = try Tensor(targets.centerness, shape: logits.shape)
    return try logits.binaryCrossEntropyWithLogits(goals, reduction: .sum)
      .multiplied(by: rules.centernessWeight * targets.factor)
  }
}

/// - Throws: where a level has several anchors a place.
func onePerPlace(_ name: String, _ place: DenseHead.Place) throws {
  guard place.anchorsPerCell == 1 else {
    throw KDSError.argument(
      "\(name): \(place.anchorsPerCell) anchors at every place; it takes one size for each of the "
        + "\(place.levels) levels and one ratio")
  }
}
