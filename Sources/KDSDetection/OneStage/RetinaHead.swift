import KDSKernels
import KDSNN
import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// The head of a RetinaNet (Lin et al. 2017): a branch for classes, one for boxes, and their losses.
public final class RetinaHead: Module {
  public let configuration: RetinaHeadConfiguration
  /// Columns of the logits; column 0 is the background's and stays unused, as in torchvision.
  public let classes: Int
  private let classification, regression: DenseBranch

  public init(
    _ configuration: RetinaHeadConfiguration, channels: Int, anchorsPerCell: Int, classes: Int,
    _ initializer: Initializer
  ) throws {
    try configuration.check()
    let norm = try Normalization(configuration.norm, of: "head")
    self.configuration = configuration
    self.classes = classes
    // Every class starts at the prior probability, so that the many backgrounds do not swamp the loss.
    let prior = -log((1 - configuration.prior) / configuration.prior)
    classification = try DenseBranch(
      channels: channels, depth: configuration.convs, outputs: anchorsPerCell * classes,
      output: "cls_logits", norm: norm, bias: prior, initializer)
    regression = try DenseBranch(
      channels: channels, depth: configuration.convs, outputs: 4 * anchorsPerCell,
      output: "bbox_reg", norm: norm, initializer)
    super.init()
    child("classification_head", classification)
    child("regression_head", regression)
  }

  public func callAsFunction(_ level: Tensor) throws -> DenseMaps {
    DenseMaps(logits: try classification(level), boxes: try regression(level))
  }

  /// "classification" and "bbox_regression": sums over anchors, divided by the image's positives, mean
  /// over images.
  func losses(_ maps: [DenseMaps], _ targets: DenseTargets) throws -> [NamedTensor] {
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
