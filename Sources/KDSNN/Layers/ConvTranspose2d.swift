import KDSTensor

/// A transposed convolution with parameters `weight` (C, K, kh, kw) and `bias` (K).
public final class ConvTranspose2d: Module, UnaryLayer {
  public let weight: Tensor
  public let bias: Tensor
  public let options: ConvolutionOptions

  /// Square kernel, no padding; He initialization by the inputs that reach one output.
  public init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int, _ initializer: Initializer
  ) throws {
    let reach = max(1, (kernel / max(1, stride)) * (kernel / max(1, stride)))
    weight = try initializer.normal(
      [inChannels, outChannels, kernel, kernel],
      deviation: (2 / Float(inChannels * reach)).squareRoot())
    bias = try Tensor.zeros([outChannels])
    options = ConvolutionOptions(stride: Size2(stride))
    super.init()
    parameter("weight", weight)
    parameter("bias", bias)
  }

  /// (N, C, H, W) to (N, K, (H − 1) · stride + kernel, …).
  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    let output = try input.convTranspose2d(weight, bias: bias, options)
    // Every input meets every weight of its channel once, as every output of a convolution does.
    FLOPCounter.reportConvolution(self, weight: weight, input: output, output: input)
    return output
  }

  public override var summary: String {
    let s = weight.shape
    return "ConvTranspose2d(\(s[0]), \(s[1]), \(s[2])x\(s[3]), stride \(options.stride))"
  }
}
