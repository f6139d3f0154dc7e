import KDSKernels
import KDSNN
import KDSTensor

/// Feature pyramid network (Lin et al. 2017):
///
///     M_top = inner(C_top);   M_l = inner(C_l) + up2(M_{l+1});   P_l = layer(M_l)
///
/// with 1×1 inner and 3×3 layer convolutions, nearest upsampling, and optional coarser levels. Names are
/// torchvision's: `inner_blocks.0.0`, `layer_blocks.0.0`, `extra_blocks.p6`.
public final class FPN: Module {
  public let configuration: NeckConfiguration
  /// Backbone maps that become levels.
  public let inputs: [FeatureDescription]
  private let inner, outer: [ConvNorm]

  public init(
    _ configuration: NeckConfiguration, inputs: [FeatureDescription], _ initializer: Initializer
  ) throws {
    guard (1...1 << 14).contains(configuration.channels) else {
      throw KDSError.argument("neck.channels: \(configuration.channels) must be 1 to 16384")
    }
    guard ["none", "pool", "p6p7", "p6p7_c5"].contains(configuration.extra) else {
      throw KDSError.argument(
        "neck.extra: \"\(configuration.extra)\" is not \"none\", \"pool\", \"p6p7\" or \"p6p7_c5\"")
    }
    let norm = try Normalization(configuration.norm, of: "neck")
    self.configuration = configuration
    self.inputs = inputs
    let pairs = inputs.map { _ in ConvNorm("0", norm == .none ? nil : "1") }
    inner = pairs
    outer = inputs.map { _ in ConvNorm("0", norm == .none ? nil : "1") }
    super.init()
    let (innerBlocks, layerBlocks) = (
      child("inner_blocks", Module()), child("layer_blocks", Module())
    )
    for (index, input) in inputs.enumerated() {
      try innerBlocks.child("\(index)", Module()).register(
        inner[index], input.channels, configuration.channels, kernel: 1, norm: norm,
        activation: .none, gain: 1, initializer)
      try layerBlocks.child("\(index)", Module()).register(
        outer[index], configuration.channels, configuration.channels, kernel: 3, norm: norm,
        activation: .none, gain: 1, initializer)
    }
    if addsConvolutions { try addExtra(initializer) }
  }

  private var addsConvolutions: Bool { configuration.extra.hasPrefix("p6p7") }

  private func addExtra(_ initializer: Initializer) throws {
    let extra = child("extra_blocks", Module())
    let channels = configuration.channels
    let first =
      configuration.extra == "p6p7_c5" ? inputs[inputs.count - 1].channels : channels
    for (name, inputs) in [("p6", first), ("p7", channels)] {
      let deviation = (1 / Float(inputs * 9)).squareRoot()
      extra.child(
        name,
        try Conv2d(inputs, channels, kernel: 3, stride: 2, deviation: deviation, initializer))
    }
  }

  /// Names "p2", "p3", … after the logarithm of the stride.
  public var levels: [FeatureDescription] {
    var strides = inputs.map(\.stride)
    let extra = configuration.extra == "none" ? 0 : configuration.extra == "pool" ? 1 : 2
    for _ in 0..<extra { strides.append(2 * strides[strides.count - 1]) }
    return strides.map {
      FeatureDescription(
        name: "p\($0.trailingZeroBitCount)", channels: configuration.channels, stride: $0)
    }
  }

  /// The pyramid of the backbone's maps, fine to coarse.
  public func callAsFunction(_ maps: [Tensor]) throws -> [Tensor] {
    guard maps.count == inputs.count, let top = maps.last else {
      throw KDSError.shape("fpn: \(maps.count) maps for \(inputs.count) levels")
    }
    var merged = try lateral(maps.count - 1, top)
    var results = [try output(maps.count - 1, merged)]
    for index in (0..<maps.count - 1).reversed() {
      let side = try lateral(index, maps[index])
      merged = try side.adding(merged.resizedNearest(Size2(side.shape[2], side.shape[3])))
      results.insert(try output(index, merged), at: 0)
    }
    return try results + coarser(results[results.count - 1], top)
  }

  private func lateral(_ index: Int, _ map: Tensor) throws -> Tensor {
    guard let owner = module(at: "inner_blocks.\(index)") else { return map }
    return try inner[index](map, in: owner)
  }

  private func output(_ index: Int, _ map: Tensor) throws -> Tensor {
    guard let owner = module(at: "layer_blocks.\(index)") else { return map }
    return try outer[index](map, in: owner)
  }

  private func coarser(_ last: Tensor, _ top: Tensor) throws -> [Tensor] {
    if configuration.extra == "pool" {
      return [try last.pool2d(PoolingOptions(kind: .max, kernel: Size2(1), stride: Size2(2)))]
    }
    guard addsConvolutions, let extra = childModule("extra_blocks") else { return [] }
    let p6 = try extra.layer("p6")(configuration.extra == "p6p7_c5" ? top : last)
    return [p6, try extra.layer("p7")(p6.relu())]
  }
}
