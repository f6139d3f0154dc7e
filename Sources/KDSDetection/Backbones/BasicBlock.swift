import KDSNN
import KDSTensor

/// Two 3×3 convolutions with a shortcut around them (He et al. 2016), with torchvision's names:
/// `conv1`, `bn1`, `conv2`, `bn2` and, where the shape changes, `downsample.0`, `downsample.1`.
final class BasicBlock: Module, UnaryLayer {
  private let first, second: ConvNorm
  private var shortcut: Shortcut?

  /// - Parameter depth: residual blocks in the whole network; without normalization the branches start
  ///   smaller by its root, so that their sum keeps its scale.
  init(
    _ inChannels: Int, _ outChannels: Int, stride: Int, norm: Normalization, depth: Int,
    _ initializer: Initializer
  ) throws {
    let bare = norm == .none
    first = ConvNorm("conv1", bare ? nil : "bn1")
    second = ConvNorm("conv2", bare ? nil : "bn2")
    super.init()
    try register(
      first, inChannels, outChannels, kernel: 3, stride: stride, norm: norm, activation: .relu,
      initializer)
    try register(
      second, outChannels, outChannels, kernel: 3, norm: norm, activation: .none,
      gain: bare ? 2 / Float(max(1, depth)) : 2, initializer)
    if stride != 1 || inChannels != outChannels {
      shortcut = child(
        "downsample",
        try Shortcut(inChannels, outChannels, stride: stride, norm: norm, initializer))
    }
  }

  func callAsFunction(_ input: Tensor) throws -> Tensor {
    let branch = try second(first(input, in: self), in: self)
    return try branch.addingReLU(shortcut.map { try $0(input) } ?? input)
  }

  /// The 1×1 convolution of a shortcut whose shape changes.
  final class Shortcut: Module, UnaryLayer {
    private let pair: ConvNorm

    init(
      _ inChannels: Int, _ outChannels: Int, stride: Int, norm: Normalization,
      _ initializer: Initializer
    ) throws {
      pair = ConvNorm("0", norm == .none ? nil : "1")
      super.init()
      try register(
        pair, inChannels, outChannels, kernel: 1, stride: stride, norm: norm, activation: .none,
        gain: 1, initializer)
    }

    func callAsFunction(_ input: Tensor) throws -> Tensor { try pair(input, in: self) }
  }
}
