import KDSTensor

/// Everything that rebuilds a RetinaNet. Defaults are those of torchvision's `retinanet_resnet50_fpn`
/// (Lin et al., "Focal Loss", 2017).
public struct RetinaNetConfiguration: DetectorConfiguration, Equatable {
  public var detector = "retinanet"
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
  /// Three octave scales a level: x, x·2^(1/3), x·2^(2/3), cut to whole pixels as in torchvision.
  public var anchor_sizes: [Float] = [32, 64, 128, 256, 512].flatMap { (x: Float) -> [Float] in
    [x, (x * 1.259_921).rounded(.down), (x * 1.587_401).rounded(.down)]
  }
  public var anchor_ratios: [Float] = [0.5, 1, 2]
  public var anchor_strides = "image"
  public var head = RetinaHeadConfiguration()
  public var surgery = ""

  public init() {
    (neck.kind, neck.extra) = ("fpn", "p6p7")
    neck.skip = 1
  }
}

/// Head, targets and inference of a RetinaNet.
public struct RetinaHeadConfiguration: Codable, Equatable {
  /// 3×3 convolutions of each branch before its last one.
  public var convs = 4
  /// Behind those convolutions: "none", "batch", "frozen_batch" or "group".
  public var norm = "none"
  /// First probability of every class.
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
  /// Most candidates of a level before suppression.
  public var top_candidates = 1000
  public var max_detections = 300

  public init() {}

  func check() throws {
    guard (0...16).contains(convs), prior > 0, prior < 1, focal_gamma >= 0, focal_alpha <= 1,
      top_candidates > 0, max_detections > 0, smooth_l1_beta >= 0
    else {
      throw KDSError.argument(
        "head: convs, prior, focal_alpha, focal_gamma, smooth_l1_beta, top_candidates or "
          + "max_detections is out of range")
    }
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
