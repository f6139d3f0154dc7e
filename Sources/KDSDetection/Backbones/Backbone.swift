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
  /// "resnet_small", "alexnet", "vgg_m", "vgg16", …
  public var name = "resnet_small"
  /// Factor on every channel count; counts are rounded to multiples of 8, at least 8.
  public var width = 1.0
  public var in_channels = 3
  /// "batch", "frozen_batch", "group" or "none"; ignored by AlexNet and VGG, which have none.
  public var norm = "batch"
  /// Stages (from the input) whose weights stay as they are; -1 takes the published choice.
  public var frozen_stages = 0
  /// Caffe's rounding of pooling sizes (up), as the published AlexNet and VGG_CNN_M detectors have.
  public var caffe_rounding = true

  public init() {}
}

/// The convolutional part of a detector.
open class Backbone: Module {
  public let configuration: BackboneConfiguration
  /// The features, shallow to deep; the last one feeds a single-level detector.
  public let descriptions: [FeatureDescription]

  public init(configuration: BackboneConfiguration, descriptions: [FeatureDescription]) {
    self.configuration = configuration
    self.descriptions = descriptions
    super.init()
  }

  /// Runs the network. `images` (N, channels, H, W), normalized.
  open func features(_ images: Tensor) throws -> [Feature] {
    throw KDSError.runtime("\(type(of: self)) has no forward pass")
  }
}

/// Channels after applying a width factor: the nearest multiple of 8, at least 8.
public func scaledChannels(_ channels: Int, by width: Double) -> Int {
  if width == 1 { return channels }
  return max(8, Int((Double(channels) * width / 8).rounded()) * 8)
}
