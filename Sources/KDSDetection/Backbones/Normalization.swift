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
  func layer(_ channels: Int, activation: Activation) throws -> (any UnaryLayer)? {
    switch self {
    case .batch: return try BatchNorm2d(channels: channels, activation: activation)
    case .frozen_batch:
      return try BatchNorm2d(channels: channels, frozen: true, activation: activation)
    case .group:
      return try GroupNorm2d(
        channels: channels, groups: groupCount(channels), activation: activation)
    case .none: return nil
    }
  }

  /// Wu and He's 32 groups where the channels allow it, else groups of 8: narrow students have few.
  private func groupCount(_ channels: Int) -> Int {
    if channels % 32 == 0 && channels >= 256 { return 32 }
    return max(1, channels / 8)
  }
}

extension Module {
  /// Registers a convolution and its normalization under the names of `pair`.
  func register(
    _ pair: ConvNorm, _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1,
    norm: Normalization, activation: Activation, gain: Float = 2, _ initializer: Initializer
  ) throws {
    let layer = try norm.layer(outChannels, activation: activation)
    let fan = Float(inChannels * kernel * kernel)
    child(
      pair.convolution,
      try Conv2d(
        inChannels, outChannels, kernel: kernel, stride: stride, bias: layer == nil,
        activation: layer == nil ? activation : .none, deviation: (gain / fan).squareRoot(),
        initializer))
    if let layer, let name = pair.normalization { child(name, layer as Module) }
  }
}
