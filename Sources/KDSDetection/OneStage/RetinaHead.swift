import KDSKernels
import KDSNN
import KDSTensor

/// The head of a RetinaNet (Lin et al. 2017): classes and box offsets for every anchor.
public final class RetinaHead: DenseHead {
  private let configuration: RetinaHeadConfiguration

  public init(
    _ configuration: RetinaHeadConfiguration, _ place: Place, _ initializer: Initializer
  ) throws {
    self.configuration = configuration
    try super.init(
      configuration, place, coding: .deltas(SIMD4(repeating: 1)), scoring: .probability,
      initializer)
  }

  override func targets(_ grid: DenseGrid, _ batch: PreparedBatch) throws -> DenseTargets {
    try IoUAssigner(configuration).assign(grid, batch: batch)
  }

  /// "classification" and "bbox_regression": sums over anchors, divided by the image's positives, mean
  /// over images.
  override func losses(
    _ maps: [DenseMaps], _ targets: DenseTargets
  ) throws -> [NamedTensor] {
    let logits = try flattenMaps(maps.map(\.logits), columns: classes)
    let deltas = try flattenMaps(maps.map(\.boxes), columns: 4).gatherRows(targets.positives)
    return [
      (
        "classification",
        try logits.sigmoidFocal(
          labels: targets.labels, factors: targets.factors, alpha: configuration.focal_alpha,
          gamma: configuration.focal_gamma)
      ), ("bbox_regression", try boxLoss(deltas, targets)),
    ]
  }

  private func boxLoss(_ deltas: Tensor, _ targets: DenseTargets) throws -> Tensor {
    let count = targets.positives.count
    if count == 0 { return try deltas.summed() }
    let factors = zip(targets.factors, targets.counts).flatMap {
      [Float](repeating: $0, count: $1)
    }
    if configuration.box_loss == "giou" {
      let boxes = try deltas.decodedBoxes(anchors: targets.anchors)
      return try boxes.giou(
        Tensor(targets.boxes, shape: [count, 4]), weights: Tensor(factors, shape: [count]),
        reduction: .sum)
    }
    let goals = try Tensor(uninitialized: [count, 4])
    Kernels.encodeBoxes(targets.boxes, anchors: targets.anchors, goals.floats, count)
    let errors =
      configuration.box_loss == "l1"
      ? try deltas.absoluteError(goals, reduction: .none)
      : try deltas.smoothL1(goals, beta: configuration.smooth_l1_beta, reduction: .none)
    return try errors.multiplied(by: Tensor(factors, shape: [count, 1])).summed()
  }
}
