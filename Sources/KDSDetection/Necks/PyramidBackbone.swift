import KDSNN
import KDSTensor

/// A backbone (`body`) under a feature pyramid (`fpn`), as torchvision's `BackboneWithFPN`.
public final class PyramidBackbone: Module, FeatureSource {
  public let body: Backbone
  private let fpn: FPN

  public init(
    body: Backbone, _ neck: NeckConfiguration, _ initializer: Initializer
  ) throws {
    let all = body.descriptions
    let first =
      neck.from.isEmpty
      ? min(max(0, neck.skip), all.count - 1) : all.firstIndex { $0.name == neck.from }
    guard let first else {
      throw KDSError.argument(
        "neck.from: the backbone has no feature \"\(neck.from)\"; it has \(all.map(\.name))")
    }
    let inputs = Array(all[first...])
    for (fine, coarse) in zip(inputs, inputs.dropFirst()) where coarse.stride <= fine.stride {
      throw KDSError.argument(
        "neck: \(fine.name) and \(coarse.name) of \(body.configuration.name) have strides "
          + "\(fine.stride) and \(coarse.stride); a pyramid needs growing ones (output_stride)")
    }
    self.body = body
    fpn = try FPN(neck, inputs: inputs, initializer)
    super.init()
    child("body", body)
    child("fpn", fpn)
  }

  public var pooledLevels: Int { fpn.inputs.count }

  public var tapDescriptions: [FeatureDescription] { body.tapDescriptions + levelDescriptions }

  public var levelDescriptions: [FeatureDescription] {
    fpn.levels.map {
      FeatureDescription(name: "neck.\($0.name)", channels: $0.channels, stride: $0.stride)
    }
  }

  public func levelSizes(_ input: Size2) -> [Size2] {
    var sizes = Array(body.mapSizes(input).suffix(fpn.inputs.count))
    // Every level that the neck adds has stride 2: pooling, or 3×3 with padding 1.
    while sizes.count < fpn.levels.count, let last = sizes.last {
      sizes.append(Size2((last.height + 1) / 2, (last.width + 1) / 2))
    }
    return sizes
  }

  public func maps(_ images: Tensor) throws -> FeatureMaps {
    let features = try body.maps(images).taps
    let pyramid = try fpn(features.suffix(fpn.inputs.count).map(\.tensor))
    let levels = zip(levelDescriptions, pyramid).map {
      Feature(name: $0.name, tensor: $1, stride: $0.stride)
    }
    return try FeatureMaps(taps: features + levels, levels: levels).quantized(body.quantizers)
  }
}
