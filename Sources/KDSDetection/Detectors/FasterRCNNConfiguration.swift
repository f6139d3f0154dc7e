/// Everything that rebuilds a Faster R-CNN; the JSON that a model file carries.
///
/// Defaults are the published ones (Ren et al. 2015 and the authors' end-to-end configuration); 0 or
/// an empty list means "what fits the backbone".
public struct FasterRCNNConfiguration: Codable, Equatable {
  public var detector = "faster_rcnn"
  /// Classes including the background, which is class 0.
  public var num_classes = 21
  public var class_names: [String] = []
  /// Shorter side that images are resized to, in pixels; the longer side stays at or below `image_max`.
  public var image_min = 600
  public var image_max = 1000
  /// Padded batch sizes are multiples of this.
  public var size_divisor = 1
  /// Per channel, in [0, 1]; ImageNet's unless told.
  public var image_mean: [Float] = [0.485, 0.456, 0.406]
  public var image_std: [Float] = [0.229, 0.224, 0.225]
  public var backbone = BackboneConfiguration()
  /// Square roots of the anchor areas, in input pixels.
  public var anchor_sizes: [Float] = [128, 256, 512]
  /// Height / width.
  public var anchor_ratios: [Float] = [0.5, 1, 2]
  public var rpn = RPNConfiguration()
  public var roi = RoIConfiguration()
  /// Layers replaced by factorised ones; written by `kd.surgery`.
  public var surgery = ""

  public init() {}
}

/// Region proposal network.
public struct RPNConfiguration: Codable, Equatable {
  /// Channels of the 3×3 convolution; 0 takes the backbone's published width.
  public var channels = 0
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

  public init() {}
}
