import KDSNN
import KDSTensor

/// The `norm` of a backbone.
enum Normalization: String, CaseIterable {
  case batch, frozen_batch, group, none

  init(_ name: String, of backbone: String) throws {
    guard let kind = Normalization(rawValue: name) else {
      let known = Self.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
      throw KDSError.argument("\(backbone): norm \"\(name)\" is not one of \(known)")
    }
    self = kind
  }

  /// The layer behind a convolution, nil for `none`.
  func layer(
    _ channels: Int, epsilon: Float = 1e-5, activation: Activation
  ) throws -> (any UnaryLayer)? {
    switch self {
    case .batch:
      return try BatchNorm2d(channels: channels, epsilon: epsilon, activation: activation)
    case .frozen_batch:
      return try BatchNorm2d(
        channels: channels, epsilon: epsilon, frozen: true, activation: activation)
    case .group:
      return try GroupNorm2d(
        channels: channels, groups: groupCount(channels), epsilon: epsilon, activation: activation)
    case .none: return nil
    }
  }

  /// Wu and He's 32 groups where the channels allow it, else groups of 8: narrow students have few.
  private func groupCount(_ channels: Int) -> Int {
    if channels % 32 == 0 && channels >= 256 { return 32 }
    return max(1, channels / 8)
  }
}

/// How the convolutions of a residual network are made; the same for all of its blocks.
struct ResidualStyle {
  let norm: Normalization
  var epsilon: Float = 1e-5
  /// Residual blocks in the whole network; without normalization the branches start smaller by its
  /// root, so that their sum keeps its scale.
  let depth: Int
  /// He's initialization by the outputs, as torchvision's; else by the inputs.
  var fanOut = false
  /// Groups of a bottleneck's 3×3 convolution.
  var groups = 1

  /// A convolution's name with that of its normalization, when there is one.
  func pair(_ convolution: String, _ normalization: String) -> ConvNorm {
    ConvNorm(convolution, norm == .none ? nil : normalization)
  }

  /// Gain of the last convolution of a block.
  var lastGain: Float { norm == .none ? 2 / Float(max(1, depth)) : 2 }
}

extension Module {
  /// Registers a convolution and its normalization under the names of `pair`.
  ///
  /// - Parameters:
  ///   - fanOut: initialize for the variance of the gradients instead of the values.
  ///   - deformable: the convolution learns where to read.
  ///   - bias: whether the convolution has one; nil: where no normalization follows.
  func register(
    _ pair: ConvNorm, _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1,
    dilation: Int = 1, groups: Int = 1, norm: Normalization, epsilon: Float = 1e-5,
    activation: Activation, gain: Float = 2, fanOut: Bool = false, deformable: Bool = false,
    bias: Bool? = nil, _ initializer: Initializer
  ) throws {
    let layer = try norm.layer(outChannels, epsilon: epsilon, activation: activation)
    let fan = (fanOut ? outChannels : inChannels / groups) * kernel * kernel
    let deviation = (gain / Float(fan)).squareRoot()
    let own = layer == nil ? activation : .none
    if deformable {
      child(
        pair.convolution,
        try DeformConv2d(
          inChannels, outChannels, kernel: kernel, stride: stride, groups: groups,
          bias: layer == nil, activation: own, deviation: deviation, initializer))
    } else {
      child(
        pair.convolution,
        try Conv2d(
          inChannels, outChannels, kernel: kernel, stride: stride, dilation: dilation,
          groups: groups, bias: bias ?? (layer == nil), activation: own, deviation: deviation,
          initializer))
    }
    if let layer, let name = pair.normalization { child(name, layer as Module) }
  }

  /// Registers a convolution of a residual network.
  func register(
    _ pair: ConvNorm, _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1,
    dilation: Int = 1, groups: Int = 1, style: ResidualStyle, activation: Activation,
    gain: Float = 2, deformable: Bool = false, _ initializer: Initializer
  ) throws {
    // Without normalization the scale of the values decides, and inputs count.
    let fanOut = style.fanOut && style.norm != .none
    try register(
      pair, inChannels, outChannels, kernel: kernel, stride: stride, dilation: dilation,
      groups: groups, norm: style.norm, epsilon: style.epsilon, activation: activation, gain: gain,
      fanOut: fanOut, deformable: deformable, initializer)
  }
}
