import KDSNN
import KDSTensor

/// The maps of one forward pass.
public struct FeatureMaps {
  /// All that distillation may look at, under tap names: "backbone.layer3", "neck.p3".
  public let taps: [Feature]
  /// The maps that heads read, fine to coarse.
  public let levels: [Feature]

  public init(taps: [Feature], levels: [Feature]) {
    self.taps = taps
    self.levels = levels
  }

  /// The map of a tap; a name without a room is looked for in the neck and the backbone.
  public func find(_ name: String) -> Feature? {
    taps.first { $0.name == name || $0.name == "backbone.\(name)" || $0.name == "neck.\(name)" }
  }
}

/// What a detector reads its maps from: a backbone alone, or with a neck.
public protocol FeatureSource: Module {
  var body: Backbone { get }
  var tapDescriptions: [FeatureDescription] { get }
  var levelDescriptions: [FeatureDescription] { get }
  /// Levels that come from the backbone's own maps, not from what a neck added above them.
  var pooledLevels: Int { get }
  /// Height and width of every level for an input of this size; 0 where the input is too small.
  func levelSizes(_ input: Size2) -> [Size2]
  func maps(_ images: Tensor) throws -> FeatureMaps
}

extension FeatureSource {
  /// Runs `body` while the backbone draws from `seed` what a training step leaves out.
  func drawing<Result>(from seed: UInt64, _ body: () throws -> Result) rethrows -> Result {
    self.body.stepSeed = seed
    defer { self.body.stepSeed = nil }
    return try body()
  }
}

/// A backbone alone feeds its last map to the heads (Ren et al. 2015).
extension Backbone: FeatureSource {
  public var body: Backbone { self }
  public var pooledLevels: Int { 1 }

  public var tapDescriptions: [FeatureDescription] {
    descriptions.map {
      FeatureDescription(name: "backbone.\($0.name)", channels: $0.channels, stride: $0.stride)
    }
  }

  public var levelDescriptions: [FeatureDescription] { Array(tapDescriptions.suffix(1)) }

  public func levelSizes(_ input: Size2) -> [Size2] { Array(mapSizes(input).suffix(1)) }

  public func maps(_ images: Tensor) throws -> FeatureMaps {
    let all = try features(images).map {
      Feature(name: "backbone.\($0.name)", tensor: $0.tensor, stride: $0.stride)
    }
    return try FeatureMaps(taps: all, levels: Array(all.suffix(1))).quantized(quantizers)
  }
}

/// Builds backbone and neck.
public func makeFeatureSource(
  _ backbone: BackboneConfiguration, _ neck: NeckConfiguration, _ initializer: Initializer
) throws -> any FeatureSource {
  let body = try makeBackbone(backbone, initializer)
  guard !body.descriptions.isEmpty else {
    throw KDSError.argument("backbone: \"\(backbone.name)\" has no feature")
  }
  switch neck.kind {
  case "none": return body
  case "fpn": return try PyramidBackbone(body: body, neck, initializer)
  case "deconv": return try FinerBackbone(body: body, neck, initializer)
  default:
    throw KDSError.argument("neck: \"\(neck.kind)\" is none of \"none\", \"fpn\" and \"deconv\"")
  }
}
