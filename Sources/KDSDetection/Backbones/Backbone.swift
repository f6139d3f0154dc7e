import KDSNN
import KDSTensor

/// A map that a backbone offers: where distillation may tap and where a detector continues.
public struct Feature {
  /// Tap name inside the backbone, for example "conv5" or "layer3".
  public let name: String
  /// (N, C, H, W), blocked.
  public let tensor: Tensor
  /// Input pixels per step of the map.
  public let stride: Int

  public init(name: String, tensor: Tensor, stride: Int) {
    self.name = name
    self.tensor = tensor
    self.stride = stride
  }
}

/// What a feature looks like before anything has run.
public struct FeatureDescription: Equatable {
  public let name: String
  public let channels: Int
  public let stride: Int

  public init(name: String, channels: Int, stride: Int) {
    self.name = name
    self.channels = channels
    self.stride = stride
  }
}

/// Everything that rebuilds a backbone. Every field has a default; a key that is not here is an error.
public struct BackboneConfiguration: Codable, Equatable {
  /// One of `backboneNames`: "resnet_small", "alexnet", "vgg_m", "vgg16", "resnet50", …
  public var name = "resnet_small"
  /// Factor on every channel count; counts are rounded to multiples of 8, at least 8. Of a Swin
  /// Transformer it scales the heads, of 32 channels each: 3 in the first stage at width 1.
  public var width = 1.0
  public var in_channels = 3
  /// "batch", "frozen_batch", "group" or "none"; ignored by AlexNet and VGG, which have none. The Swin
  /// Transformers have layer normalization and take the default only.
  public var norm = "batch"
  /// Added to the variances under the root; old checkpoints of torchvision's detectors need 0.
  public var norm_epsilon = 1e-5
  /// Stages (from the input) whose weights stay as they are; -1 takes the published choice.
  public var frozen_stages = 0
  /// Caffe's rounding of pooling sizes (up), as the published AlexNet and VGG_CNN_M detectors have.
  public var caffe_rounding = true
  /// Padding of AlexNet's conv1 (5) and pools (1) as in the published detector; others ignore it.
  public var padded = true
  /// Stride of the last feature, 0 for the backbone's own: 8 for resnet_small (which takes 4, 8 or 16),
  /// 32 for the other ResNets and the Swin Transformers, 16 for AlexNet and VGG.
  public var output_stride = 0
  /// Layers of a ResNet, 1 to 4, whose 3×3 convolutions are deformable.
  public var dcn_stages: [Int] = []
  /// Whether each stage of a Swin Transformer has a layer normalization behind it (`norm0`, …), as in
  /// detectors; others ignore it.
  public var output_norm = true
  /// Probability that a training step leaves out the branches of a Swin Transformer's last block; it
  /// falls to 0 at the first. Published: 0.2 for swin_t, 0.3 for swin_s.
  public var drop_path = 0.0

  public init() {}
}

/// The published sizes of what stands on a backbone, already multiplied by its width.
public struct RoIHeadDefaults: Equatable {
  /// Cells per side that a region is pooled to.
  public var poolSize: Int
  /// Outputs of the fully connected layers.
  public var hidden: [Int]
  /// Probability of dropping after each of them.
  public var dropout: Float
  /// Channels of the region proposal network's 3×3 convolution.
  public var rpnChannels: Int

  public init(poolSize: Int, hidden: [Int], dropout: Float, rpnChannels: Int) {
    self.poolSize = poolSize
    self.hidden = hidden
    self.dropout = dropout
    self.rpnChannels = rpnChannels
  }

  func scaled(by width: Double) -> RoIHeadDefaults {
    RoIHeadDefaults(
      poolSize: poolSize, hidden: hidden.map { scaledChannels($0, by: width) }, dropout: dropout,
      rpnChannels: scaledChannels(rpnChannels, by: width))
  }
}

/// The convolutional part of a detector. Built by `makeBackbone`.
open class Backbone: Module {
  public let configuration: BackboneConfiguration
  /// The features, shallow to deep; the last one feeds a single-level detector.
  public let descriptions: [FeatureDescription]
  /// Stages whose weights stay as they are, counted from the input.
  public private(set) var frozenStages = 0
  /// Quantizers behind maps that heads read, by the maps' names; surgery puts them here.
  public var quantizers: [String: FeatureQuantizer] = [:]

  public init(configuration: BackboneConfiguration, descriptions: [FeatureDescription]) {
    self.configuration = configuration
    self.descriptions = descriptions
    super.init()
  }

  /// Sizes of the heads that usually stand on this backbone.
  open var headDefaults: RoIHeadDefaults {
    RoIHeadDefaults(poolSize: 7, hidden: [256], dropout: 0, rpnChannels: 256)
  }

  /// Stages that the published detector keeps frozen (`frozen_stages = -1`).
  open var publishedFrozenStages: Int { 0 }

  /// Dotted names of the layers of each stage, from the input.
  open var stages: [[String]] { [] }

  /// Draws what a training step leaves out of the network; nil leaves all in. Most have nothing to draw.
  open var stepSeed: UInt64? {
    get { nil }
    set {}
  }

  /// Height and width of every feature for an input of this size; 0 where the input is too small.
  open func mapSizes(_ input: Size2) -> [Size2] { [] }

  /// Runs the network. `images` (N, channels, H, W), normalized.
  open func features(_ images: Tensor) throws -> [Feature] {
    throw KDSError.runtime("\(type(of: self)) has no forward pass")
  }

  /// Frozen stages stay in evaluation: their batch statistics must not move either.
  open override func setTraining(_ training: Bool) {
    super.setTraining(training)
    if training { forEachFrozen { $0.setTraining(false) } }
  }

  /// Freezes what the configuration says.
  func applyFrozenStages() throws {
    let wanted = configuration.frozen_stages
    guard (-1...stages.count).contains(wanted) else {
      throw KDSError.argument(
        "\(configuration.name): frozen_stages \(wanted) must be -1 (as published) to \(stages.count)"
      )
    }
    frozenStages = wanted == -1 ? publishedFrozenStages : wanted
    forEachFrozen {
      $0.setRequiresGrad(false)
      $0.setTraining(false)
    }
  }

  func checkImages(_ images: Tensor) throws {
    guard images.rank == 4, images.dtype == .float32, images.shape[1] == configuration.in_channels
    else {
      throw KDSError.shape(
        "\(configuration.name): images must be float (N, \(configuration.in_channels), H, W), "
          + "got \(images.shape)")
    }
  }

  private func forEachFrozen(_ body: (Module) -> Void) {
    for path in stages.prefix(frozenStages).joined() { module(at: path).map(body) }
  }
}

/// Channels after applying a width factor: the nearest multiple of 8, at least 8.
public func scaledChannels(_ channels: Int, by width: Double) -> Int {
  if width == 1 { return channels }
  return max(8, Int((Double(channels) * width / 8).rounded()) * 8)
}
