import KDSTensor

public typealias ATSSConfiguration = OneStageConfiguration<ATSSHeadConfiguration>
public typealias GFLConfiguration = OneStageConfiguration<GFLHeadConfiguration>

/// One square anchor a place, 8 strides wide.
private let widths: [Float] = [64, 128, 256, 512, 1024]

extension OneStageConfiguration where Head == ATSSHeadConfiguration {
  /// Defaults of the published ATSS (Zhang et al. 2020; mmdetection's atss_r50_fpn_1x_coco).
  public init() {
    self.init("atss", sizes: widths, ratios: [1], strides: "nominal", head: ATSSHeadConfiguration())
  }
}

extension OneStageConfiguration where Head == GFLHeadConfiguration {
  /// Defaults of the published GFL (Li et al. 2020; mmdetection's gfl_r50_fpn_1x_coco).
  public init() {
    self.init("gfl", sizes: widths, ratios: [1], strides: "nominal", head: GFLHeadConfiguration())
  }
}

/// Head, targets and inference of ATSS.
public struct ATSSHeadConfiguration: DenseHeadConfiguration {
  public var convs = 4
  public var norm = "group"
  public var prior: Float = 0.01
  public var focal_alpha: Float = 0.25
  public var focal_gamma: Float = 2
  /// Nearest anchors of each level that are candidates of a box.
  public var assigner_candidates = 9
  /// Weights of the losses of boxes and of centerness.
  public var box_weight: Float = 2
  public var centerness_weight: Float = 1
  public var score_threshold: Float = 0.05
  public var nms: Float = 0.6
  public var top_candidates = 1000
  public var max_detections = 100

  public init() {}

  public func check() throws {
    try checkCommon()
    try checkFocal(focal_alpha, focal_gamma)
    try checkCandidates(assigner_candidates)
    try checkNotNegative([("box_weight", box_weight), ("centerness_weight", centerness_weight)])
  }
}

/// Head, targets and inference of GFL.
public struct GFLHeadConfiguration: DenseHeadConfiguration {
  public var convs = 4
  public var norm = "group"
  public var prior: Float = 0.01
  /// Exponent of the quality focal loss.
  public var quality_beta: Float = 2
  /// The largest distance from place to side, in strides; there are `reg_max` + 1 bins.
  public var reg_max = 16
  public var assigner_candidates = 9
  /// Weights of the losses of boxes and of their distributions.
  public var box_weight: Float = 2
  public var distribution_weight: Float = 0.25
  public var score_threshold: Float = 0.05
  public var nms: Float = 0.6
  public var top_candidates = 1000
  public var max_detections = 100

  public init() {}

  public func check() throws {
    try checkCommon()
    try checkCandidates(assigner_candidates)
    try checkNotNegative([
      ("quality_beta", quality_beta), ("box_weight", box_weight),
      ("distribution_weight", distribution_weight),
    ])
    guard (1...256).contains(reg_max) else {
      throw KDSError.argument("head.reg_max: \(reg_max) must be 1 to 256")
    }
  }
}

extension DenseHeadConfiguration {
  func checkCandidates(_ count: Int) throws {
    guard (1...1000).contains(count) else {
      throw KDSError.argument("head.assigner_candidates: \(count) must be 1 to 1000")
    }
  }
}
