import KDSNN
import KDSTensor

/// A 1×1, a 3×3 and a 1×1 convolution with a shortcut around them (He et al. 2016; in groups Xie et
/// al. 2017), with torchvision's names `conv1`, `bn1` to `conv3`, `bn3`, `downsample.0`, `downsample.1`.
///
/// The stride is the 3×3 convolution's, as in torchvision and not as in the first publication.
final class Bottleneck: Module, UnaryLayer {
  private let first, second, third: ConvNorm
  private var shortcut: Shortcut?

  /// - Parameters:
  ///   - inner: channels of the 3×3 convolution.
  ///   - dilation: of the 3×3 convolution.
  ///   - deformable: the 3×3 convolution learns where to read.
  init(
    _ inChannels: Int, inner: Int, _ outChannels: Int, stride: Int, dilation: Int = 1,
    style: ResidualStyle, deformable: Bool = false, _ initializer: Initializer
  ) throws {
    first = style.pair("conv1", "bn1")
    second = style.pair("conv2", "bn2")
    third = style.pair("conv3", "bn3")
    super.init()
    try register(
      first, inChannels, inner, kernel: 1, style: style, activation: .relu, initializer)
    try register(
      second, inner, inner, kernel: 3, stride: stride, dilation: dilation, groups: style.groups,
      style: style, activation: .relu, deformable: deformable, initializer)
    try register(
      third, inner, outChannels, kernel: 1, style: style, activation: .none,
      gain: style.lastGain, initializer)
    shortcut = try addShortcut(inChannels, outChannels, stride: stride, style, initializer)
  }

  func callAsFunction(_ input: Tensor) throws -> Tensor {
    let branch = try third(second(first(input, in: self), in: self), in: self)
    return try branch.addingReLU(shortcut.map { try $0(input) } ?? input)
  }
}
