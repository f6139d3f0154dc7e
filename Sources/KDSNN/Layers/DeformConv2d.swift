import KDSTensor

/// A 3×3 (or other) convolution that learns where to read (Zhu et al. 2019), with mmcv's names:
/// `weight` (K, C/groups, k, k), `bias` (K) and `conv_offset`, an ordinary convolution with 3·k² outputs.
///
/// Of these the first 2·k² are offsets, y before x for each place of the kernel, and the last k² go
/// through a sigmoid and are the mask. `conv_offset` starts at zero: an ordinary convolution, halved.
public final class DeformConv2d: Module, UnaryLayer {
  public let weight: Tensor
  public let bias: Tensor?
  public let options: ConvolutionOptions

  /// From sizes; "same" padding.
  /// - Parameter deviation: standard deviation of the initial weights; nil for He's.
  public init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1, groups: Int = 1,
    bias: Bool = false, activation: Activation = .none, deviation: Float? = nil,
    _ initializer: Initializer
  ) throws {
    let shape = [outChannels, inChannels / max(1, groups), kernel, kernel]
    weight =
      try deviation.map { try initializer.normal(shape, deviation: $0) }
      ?? initializer.kaimingNormal(shape)
    self.bias = bias ? try Tensor.zeros([outChannels]) : nil
    options = ConvolutionOptions(
      stride: Size2(stride), padding: Padding(kernel / 2), groups: groups, activation: activation)
    super.init()
    parameter("weight", weight)
    if let bias = self.bias { parameter("bias", bias) }
    let offsets = 3 * kernel * kernel
    child(
      "conv_offset",
      Conv2d(
        weight: try Tensor.zeros([offsets, inChannels, kernel, kernel]),
        bias: try Tensor.zeros([offsets]),
        options: ConvolutionOptions(stride: Size2(stride), padding: Padding(kernel / 2))))
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    let taps = weight.shape[2] * weight.shape[3]
    let read = try layer("conv_offset")(input).plain().split([2 * taps, taps], axis: 1)
    var plain = options
    plain.activation = .none
    let output = try input.deformConv2d(
      weight, offset: read[0], mask: read[1].sigmoid(), bias: bias, plain)
    FLOPCounter.reportConvolution(self, weight: weight, input: input, output: output)
    return options.activation == .relu ? try output.relu() : output
  }

  public override var summary: String {
    let s = weight.shape
    return "DeformConv2d(\(s[1] * options.groups), \(s[0]), \(s[2])x\(s[3]), "
      + "stride \(options.stride)" + (options.groups > 1 ? ", groups \(options.groups))" : ")")
  }
}
