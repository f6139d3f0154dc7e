import KDSTensor

public typealias RetinaNetConfiguration = OneStageConfiguration<RetinaHeadConfiguration>

extension OneStageConfiguration where Head == RetinaHeadConfiguration {
  /// Defaults of torchvision's `retinanet_resnet50_fpn` (Lin et al., "Focal Loss", 2017): three octave
  /// scales a level, x, x·2^(1/3), x·2^(2/3), cut to whole pixels.
  public init() {
    self.init(
      "retinanet",
      sizes: [32, 64, 128, 256, 512].flatMap { (x: Float) -> [Float] in
        [x, (x * 1.259_921).rounded(.down), (x * 1.587_401).rounded(.down)]
      }, ratios: [0.5, 1, 2], strides: "image", head: RetinaHeadConfiguration())
  }
}

/// Head, targets and inference of a RetinaNet.
public struct RetinaHeadConfiguration: DenseHeadConfiguration {
  public var convs = 4
  public var norm = "none"
  public var prior: Float = 0.01
  public var focal_alpha: Float = 0.25
  public var focal_gamma: Float = 2
  /// An anchor at or above this IoU with a box is positive; the best anchors of a box are too.
  public var positive_iou: Float = 0.5
  /// An anchor below this IoU with every box is background; between the two it does not count.
  public var negative_iou: Float = 0.4
  /// "l1", "smooth_l1" or "giou".
  public var box_loss = "l1"
  public var smooth_l1_beta: Float = 1.0 / 9
  public var score_threshold: Float = 0.05
  public var nms: Float = 0.5
  public var top_candidates = 1000
  public var max_detections = 300

  public init() {}

  public func check() throws {
    try checkCommon()
    try checkFocal(focal_alpha, focal_gamma)
    try checkNotNegative([("smooth_l1_beta", smooth_l1_beta)])
    guard negative_iou >= 0, positive_iou >= negative_iou, positive_iou <= 1 else {
      throw KDSError.argument(
        "head: negative_iou \(negative_iou) and positive_iou \(positive_iou) must be 0 <= … <= 1")
    }
    guard ["l1", "smooth_l1", "giou"].contains(box_loss) else {
      throw KDSError.argument(
        "head.box_loss: \"\(box_loss)\" is not \"l1\", \"smooth_l1\" or \"giou\"")
    }
  }
}

extension DenseHeadConfiguration {
  func checkFocal(_ alpha: Float, _ gamma: Float) throws {
    guard alpha <= 1, gamma >= 0, gamma.isFinite else {
      throw KDSError.argument(
        "head: focal_alpha \(alpha) must be at most 1 and focal_gamma \(gamma) at least 0")
    }
  }
}
