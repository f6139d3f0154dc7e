import KDSKernels
import KDSNN
import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// The head of GFL (Li et al. 2020): class scores that learn the IoU of the predicted box, and a
/// distribution over distances for every side.
public final class GFLHead: DenseHead {
  private let configuration: GFLHeadConfiguration

  public init(
    _ configuration: GFLHeadConfiguration, _ place: Place, _ initializer: Initializer
  ) throws {
    try onePerPlace("gfl", place)
    try configuration.check()
    self.configuration = configuration
    try super.init(
      configuration, place, coding: .distribution(bins: configuration.reg_max + 1),
      scoring: .probability, scaled: true, initializer)
  }

  override func targets(_ grid: DenseGrid, _ batch: PreparedBatch) throws -> DenseTargets {
    try ATSSAssigner(candidates: configuration.assigner_candidates).assign(
      grid, batch: batch)
  }

  /// With P positives in the batch, q the IoU of their predicted boxes and w their largest class
  /// probability, both constants:
  ///
  ///     classification    = Σ QFL(logits, q) / max(1, P)                     eq. 4
  ///     bbox_regression   = box_weight Σ w (1 - GIoU) / max(1, Σ w)
  ///     bbox_distribution = distribution_weight Σ w mean_4 DFL / max(1, Σ w)     eq. 6
  override func losses(
    _ maps: [DenseMaps], _ targets: DenseTargets
  ) throws -> [NamedTensor] {
    let logits = try flattenMaps(maps.map(\.logits), columns: classes)
    let codes = try flattenMaps(maps.map(\.boxes), columns: coding.columns)
      .gatherRows(targets.positives)
    let boxes = try coding.decoded(codes, anchors: targets.anchors, strides: targets.strides)
    let weights = probabilities(logits, targets.positives)
    let share = 1 / max(1, weights.reduce(0, +))
    return [
      ("classification", try classLoss(logits, boxes, targets)),
      ("bbox_regression", try boxLoss(boxes, targets, weights, share)),
      ("bbox_distribution", try distributionLoss(codes, targets, weights, share)),
    ]
  }

  private func classLoss(
    _ logits: Tensor, _ boxes: Tensor, _ targets: DenseTargets
  ) throws -> Tensor {
    let qualities = try Tensor.zeros([logits.shape[0]])
    for (index, row) in targets.positives.enumerated() {
      qualities.floats[row] = overlap(boxes.floats + 4 * index, targets.boxes, 4 * index)
    }
    return try logits.qualityFocal(
      labels: targets.labels, qualities: qualities, beta: configuration.quality_beta,
      factor: Double(targets.factor))
  }

  private func boxLoss(
    _ boxes: Tensor, _ targets: DenseTargets, _ weights: [Float], _ share: Float
  ) throws -> Tensor {
    try boxes.giou(
      Tensor(targets.boxes, shape: boxes.shape), weights: Tensor(weights, shape: [weights.count]),
      reduction: .sum
    ).multiplied(by: configuration.box_weight * share)
  }

  private func distributionLoss(
    _ codes: Tensor, _ targets: DenseTargets, _ weights: [Float], _ share: Float
  ) throws -> Tensor {
    let bins = configuration.reg_max + 1
    let sides = 4 * weights.count
    return try codes.reshaped([sides, bins]).distributionFocal(
      Tensor(distances(targets), shape: [sides]),
      weights: Tensor((0..<sides).map { weights[$0 / 4] }, shape: [sides]), reduction: .sum
    ).multiplied(by: configuration.distribution_weight * share / 4)
  }

  /// From the centre of each positive to the sides of its box in strides, (P, 4); at most 0.1 below the
  /// last bin.
  private func distances(_ targets: DenseTargets) -> [Float] {
    let last = Float(configuration.reg_max) - 0.1
    return (0..<4 * targets.positives.count).map { index in
      let (row, side) = (index / 4, index % 4)
      let first = 4 * row + side % 2
      let centre = (targets.anchors[first] + targets.anchors[first + 2]) / 2
      let gap = side < 2 ? centre - targets.boxes[index] : targets.boxes[index] - centre
      return min(max(gap / targets.strides[row], 0), last)
    }
  }

  /// The largest probability of a class, the background's column aside.
  private func probabilities(_ logits: Tensor, _ rows: [Int]) -> [Float] {
    rows.map { row in
      let own = logits.floats + row * classes
      var best = -Float.infinity
      for column in 1..<classes { best = max(best, own[column]) }
      return 1 / (1 + exp(-best))
    }
  }

  /// IoU of a predicted box and the target that begins at `first`, in 0...1.
  private func overlap(_ box: UnsafePointer<Float>, _ targets: [Float], _ first: Int) -> Float {
    let (x1, y1, x2, y2) = (
      targets[first], targets[first + 1], targets[first + 2], targets[first + 3]
    )
    let inter =
      max(0, min(box[2], x2) - max(box[0], x1)) * max(0, min(box[3], y2) - max(box[1], y1))
    let union = (box[2] - box[0]) * (box[3] - box[1]) + (x2 - x1) * (y2 - y1) - inter
    return min(1, max(0, inter / max(union, 1e-6)))
  }
}
