import KDSTensor

/// What the heads of all one-stage detectors have among their options.
public protocol DenseHeadConfiguration: Codable, Equatable {
  /// 3×3 convolutions of each branch before its last ones.
  var convs: Int { get }
  /// Behind those convolutions: "none", "batch", "frozen_batch" or "group".
  var norm: String { get }
  /// First probability of every class.
  var prior: Float { get }
  var score_threshold: Float { get }
  /// IoU above which the lower-scored of two boxes of a class goes.
  var nms: Float { get }
  /// Most candidates of a level before suppression.
  var top_candidates: Int { get }
  var max_detections: Int { get }
  /// - Throws: `KDSError.argument` naming the option that cannot be.
  func check() throws
}

extension DenseHeadConfiguration {
  func checkCommon() throws {
    guard (0...16).contains(convs), prior > 0, prior < 1, top_candidates > 0, max_detections > 0
    else {
      throw KDSError.argument(
        "head: convs, prior, top_candidates or max_detections is out of range")
    }
  }

  /// Options that are weights or exponents.
  func checkNotNegative(_ values: [(name: String, value: Float)]) throws {
    for (name, value) in values where !(value >= 0 && value.isFinite) {
      throw KDSError.argument("head.\(name): \(value) must be a number of at least 0")
    }
  }
}

/// Everything that rebuilds a one-stage detector.
public struct OneStageConfiguration<Head: DenseHeadConfiguration>: DetectorConfiguration, Equatable
{
  public var detector: String
  /// Classes including the background, which is class 0 (its column of logits is never a target).
  public var num_classes = 91
  public var class_names: [String] = []
  public var image_min = 800
  public var image_max = 1333
  public var image_rounding = "floor"
  public var size_divisor = 32
  public var image_mean: [Float] = [0.485, 0.456, 0.406]
  public var image_std: [Float] = [0.229, 0.224, 0.225]
  public var backbone = BackboneConfiguration()
  public var neck = NeckConfiguration()
  public var anchor_sizes: [Float]
  public var anchor_ratios: [Float]
  public var anchor_strides: String
  public var head: Head
  public var surgery = ""

  /// On a pyramid of P3 to P7, as all of them are published.
  init(
    _ detector: String, sizes: [Float], ratios: [Float], strides: String, head: Head
  ) {
    self.detector = detector
    (anchor_sizes, anchor_ratios, anchor_strides) = (sizes, ratios, strides)
    self.head = head
    (neck.kind, neck.extra) = ("fpn", "p6p7")
    neck.skip = 1
  }
}
