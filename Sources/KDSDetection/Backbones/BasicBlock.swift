import KDSNN
import KDSTensor

/// Two 3×3 convolutions with a shortcut around them (He et al. 2016), with torchvision's names:
/// `conv1`, `bn1`, `conv2`, `bn2` and, where the shape changes, `downsample.0`, `downsample.1`.
final class BasicBlock: Module, UnaryLayer {
  private let first, second: ConvNorm
  private var shortcut: Shortcut?

  /// - Parameter deformable: `conv2` learns where to read.
  init(
    _ inChannels: Int, _ outChannels: Int, stride: Int, style: ResidualStyle,
    deformable: Bool = false, _ initializer: Initializer
  ) throws {
    first = style.pair("conv1", "bn1")
    second = style.pair("conv2", "bn2")
    super.init()
    try register(
      first, inChannels, outChannels, kernel: 3, stride: stride, style: style, activation: .relu,
      initializer)
    try register(
      second, outChannels, outChannels, kernel: 3, style: style, activation: .none,
      gain: style.lastGain, deformable: deformable, initializer)
    shortcut = try addShortcut(inChannels, outChannels, stride: stride, style, initializer)
  }

  func callAsFunction(_ input: Tensor) throws -> Tensor {
    let branch = try second(first(input, in: self), in: self)
    return try branch.addingReLU(shortcut.map { try $0(input) } ?? input)
  }
}

/// The 1×1 convolution of a shortcut whose shape changes: `downsample.0` and `downsample.1`.
final class Shortcut: Module, UnaryLayer {
  private let pair: ConvNorm

  init(
    _ inChannels: Int, _ outChannels: Int, stride: Int, style: ResidualStyle,
    _ initializer: Initializer
  ) throws {
    pair = style.pair("0", "1")
    super.init()
    try register(
      pair, inChannels, outChannels, kernel: 1, stride: stride, style: style, activation: .none,
      gain: style.fanOut && style.norm != .none ? 2 : 1, initializer)
  }

  func callAsFunction(_ input: Tensor) throws -> Tensor { try pair(input, in: self) }
}

extension Module {
  /// Registers the convolution of a block's shortcut, nil where the shape stays.
  func addShortcut(
    _ inChannels: Int, _ outChannels: Int, stride: Int, _ style: ResidualStyle,
    _ initializer: Initializer
  ) throws -> Shortcut? {
    if stride == 1 && inChannels == outChannels { return nil }
    return child(
      "downsample",
      try Shortcut(inChannels, outChannels, stride: stride, style: style, initializer))
  }
}
