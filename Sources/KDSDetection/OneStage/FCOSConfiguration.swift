import KDSTensor

public typealias FCOSConfiguration = OneStageConfiguration<FCOSHeadConfiguration>

extension OneStageConfiguration where Head == FCOSHeadConfiguration {
  /// Defaults of torchvision's `fcos_resnet50_fpn` (Tian et al. 2019, 2020): one square anchor a place,
  /// as large as the level's stride.
  public init() {
    self.init(
      "fcos", sizes: [8, 16, 32, 64, 128], ratios: [1], strides: "image",
      head: FCOSHeadConfiguration())
  }
}

/// Head, targets and inference of FCOS.
public struct FCOSHeadConfiguration: DenseHeadConfiguration {
  public var convs = 4
  public var norm = "group"
  public var prior: Float = 0.01
  public var focal_alpha: Float = 0.25
  public var focal_gamma: Float = 2
  /// A place counts when it lies this many anchor sizes from the centre of a box, per axis; less.
  public var center_radius: Float = 1.5
  public var score_threshold: Float = 0.2
  public var nms: Float = 0.6
  public var top_candidates = 1000
  public var max_detections = 100

  public init() {}

  public func check() throws {
    try checkCommon()
    try checkFocal(focal_alpha, focal_gamma)
    guard center_radius > 0, center_radius.isFinite else {
      throw KDSError.argument("head.center_radius: \(center_radius) must be a number above 0")
    }
  }
}
