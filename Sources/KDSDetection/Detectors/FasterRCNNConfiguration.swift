import KDSTensor

/// Everything that rebuilds a two-stage detector; the JSON that a model file carries.
///
/// Defaults are the published ones (Ren et al. 2015 and the authors' end-to-end configuration); 0 or
/// an empty list means "what fits the backbone".
public struct FasterRCNNConfiguration: DetectorConfiguration, Equatable {
  public var detector = "faster_rcnn"
  /// Classes including the background, which is class 0.
  public var num_classes = 21
  public var class_names: [String] = []
  /// Shorter side that images are resized to, in pixels; the longer side stays at or below `image_max`.
  public var image_min = 600
  public var image_max = 1000
  /// How a resized side becomes whole pixels: "round", or "floor" as in torchvision.
  public var image_rounding = "round"
  /// Padded batch sizes are multiples of this.
  public var size_divisor = 1
  /// Per channel, in [0, 1]; ImageNet's unless told.
  public var image_mean: [Float] = [0.485, 0.456, 0.406]
  public var image_std: [Float] = [0.229, 0.224, 0.225]
  public var backbone = BackboneConfiguration()
  public var neck = NeckConfiguration()
  /// Square roots of the anchor areas, in input pixels; with a neck those of every level, fine to coarse.
  public var anchor_sizes: [Float] = [128, 256, 512]
  /// Height / width.
  public var anchor_ratios: [Float] = [0.5, 1, 2]
  /// Steps between anchors: "nominal" (the level's stride) or "image" (input size / map size).
  public var anchor_strides = "nominal"
  public var rpn = RPNConfiguration()
  public var roi = RoIConfiguration()
  /// The mask branch; nil without one.
  public var mask: MaskConfiguration?
  /// The stages of a Cascade R-CNN; nil for others.
  public var cascade: CascadeConfiguration?
  /// The position-sensitive maps of an R-FCN; nil for others.
  public var rfcn: RFCNConfiguration?
  /// Layers replaced by factorised ones; written by `kd.surgery`.
  public var surgery = ""

  public init() {}

  /// With a feature pyramid: torchvision's `fasterrcnn_resnet50_fpn` (Lin et al. 2017).
  public static var pyramid: FasterRCNNConfiguration {
    var all = FasterRCNNConfiguration()
    (all.image_min, all.image_max, all.image_rounding, all.size_divisor) = (800, 1333, "floor", 32)
    all.neck.kind = "fpn"
    (all.anchor_sizes, all.anchor_strides) = ([32, 64, 128, 256, 512], "image")
    all.rpn.objectness = "sigmoid"
    all.rpn.drop_border_anchors = false
    (all.rpn.pre_nms_train, all.rpn.post_nms_train) = (2000, 2000)
    (all.rpn.pre_nms_test, all.rpn.post_nms_test) = (1000, 1000)
    all.rpn.min_size = 1e-3
    (all.roi.batch, all.roi.nms, all.roi.smooth_l1_beta) = (512, 0.5, 1.0 / 9)
    (all.roi.hidden, all.roi.dropout, all.roi.pool_size, all.roi.min_size) = (
      [1024, 1024], 0, 7, 0.01
    )
    return all
  }

  /// torchvision's `maskrcnn_resnet50_fpn` (He et al. 2017): `pyramid` with a mask branch.
  public static var masked: FasterRCNNConfiguration {
    var all = pyramid
    (all.detector, all.mask) = ("mask_rcnn", MaskConfiguration())
    return all
  }
}

extension FasterRCNNConfiguration {
  /// - Throws: `KDSError.argument` naming the field that cannot be.
  func check() throws {
    try checkCommon()
    try checkSections()
    guard rpn.batch > 0, roi.batch > 0, roi.max_detections > 0, rpn.post_nms_test > 0,
      rpn.post_nms_train > 0, rpn.pre_nms_test > 0, rpn.pre_nms_train > 0
    else {
      throw KDSError.argument("rpn and roi: batch sizes and limits must be positive")
    }
    guard ["softmax", "sigmoid"].contains(rpn.objectness) else {
      throw KDSError.argument(
        "rpn.objectness: \"\(rpn.objectness)\" is neither \"softmax\" nor \"sigmoid\"")
    }
    guard roi.pool_size >= 0, roi.pool_size <= 64, roi.dropout < 1, roi.sampling_ratio <= 64,
      roi.hidden.allSatisfy({ $0 > 0 && $0 <= 1 << 16 }), rpn.channels <= 1 << 14
    else {
      throw KDSError.argument("roi: pool_size, hidden and dropout are out of range")
    }
  }
}

extension FasterRCNNConfiguration {
  /// - Throws: `KDSError.argument` for a section that the detector lacks, or has not.
  private func checkSections() throws {
    let isCascade = detector == "cascade_rcnn"
    guard isCascade || (detector == "mask_rcnn") == (mask != nil) else {
      throw KDSError.argument(
        "mask: \(mask == nil ? "\(detector) needs a" : "\(detector) has no") mask branch")
    }
    guard isCascade == (cascade != nil) else {
      throw KDSError.argument("cascade: \(detector) \(isCascade ? "needs" : "has no") stages")
    }
    guard (detector == "rfcn") == (rfcn != nil) else {
      throw KDSError.argument("rfcn: \(detector) and this section do not go together")
    }
    try cascade?.check()
  }
}

/// Region proposal network.
public struct RPNConfiguration: Codable, Equatable {
  /// Channels of the 3×3 convolutions; 0 takes the backbone's published width, or the neck's.
  public var channels = 0
  /// How many 3×3 convolutions.
  public var convs = 1
  /// "softmax" over two logits, as published, or "sigmoid" of one, as in torchvision.
  public var objectness = "softmax"
  /// An anchor at or above this IoU with a box is positive; the best anchors of a box are too.
  public var positive_iou: Float = 0.7
  /// An anchor below this IoU with every box is negative.
  public var negative_iou: Float = 0.3
  /// Anchors per image in the loss, and the share of positives at most.
  public var batch = 256
  public var positive_fraction = 0.5
  /// Leaves anchors that cross the image border out of training, as published.
  public var drop_border_anchors = true
  public var nms: Float = 0.7
  public var pre_nms_train = 12000
  public var post_nms_train = 2000
  public var pre_nms_test = 6000
  public var post_nms_test = 300
  /// Proposals with a shorter side (input pixels) are dropped.
  public var min_size: Float = 16
  /// Smooth L1 turns linear here (σ = 3).
  public var smooth_l1_beta: Float = 1.0 / 9

  public init() {}
}

/// Region head (the paper's RCN).
public struct RoIConfiguration: Codable, Equatable {
  /// Regions per image in the loss, and the share of positives at most.
  public var batch = 128
  public var positive_fraction = 0.25
  public var positive_iou: Float = 0.5
  /// Negatives have an IoU in [negative_low, positive_iou).
  public var negative_low: Float = 0
  /// "align" (bilinear) or "pool" (the original's maximum over rounded bins).
  public var pool = "align"
  /// Bins per side; 0 takes the backbone's published size.
  public var pool_size = 0
  /// Sampling points per bin side of RoIAlign; 0 adapts to the region.
  public var sampling_ratio = 2
  /// Widths of the fully connected layers; empty takes the backbone's published ones.
  public var hidden: [Int] = []
  /// Dropout after each hidden layer; -1 takes the backbone's published rate.
  public var dropout: Float = -1
  /// Standard deviations that regression targets are divided by.
  public var box_std: [Float] = [0.1, 0.1, 0.2, 0.2]
  public var smooth_l1_beta: Float = 1
  public var score_threshold: Float = 0.05
  public var nms: Float = 0.3
  public var max_detections = 100
  /// Detections with a side at or below this (input pixels) are dropped.
  public var min_size: Float = 0
  /// Channels of 3×3 convolutions before the fully connected layers; empty for none.
  public var convs: [Int] = []
  /// Normalization behind those convolutions: "none", "batch", "frozen_batch" or "group".
  public var norm = "none"

  public init() {}
}
