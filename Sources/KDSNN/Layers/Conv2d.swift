import KDSTensor

/// A convolution layer with parameters `weight` (K, C/groups, kh, kw) and `bias` (K).
public final class Conv2d: Module {
  public let weight: Tensor
  public let bias: Tensor?
  public var options: ConvolutionOptions

  /// From weights.
  public init(weight: Tensor, bias: Tensor?, options: ConvolutionOptions = ConvolutionOptions()) {
    self.weight = weight
    self.bias = bias
    self.options = options
    super.init()
    parameter("weight", weight)
    if let bias { parameter("bias", bias) }
  }

  /// From sizes; He initialization unless `deviation` gives the standard deviation of a normal.
  public convenience init(
    _ inChannels: Int, _ outChannels: Int, kernel: Size2, options: ConvolutionOptions,
    bias: Bool = true, deviation: Float? = nil, _ initializer: Initializer
  ) throws {
    let shape = [outChannels, inChannels / max(1, options.groups), kernel.height, kernel.width]
    let weight =
      try deviation.map { try initializer.normal(shape, deviation: $0) }
      ?? initializer.kaimingNormal(shape, fanOut: false)
    self.init(
      weight: weight, bias: bias ? try Tensor.zeros([outChannels]) : nil, options: options)
  }

  /// Square kernel, "same" padding unless told.
  public convenience init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1, padding: Int? = nil,
    dilation: Int = 1, groups: Int = 1, bias: Bool = true, activation: Activation = .none,
    deviation: Float? = nil, _ initializer: Initializer
  ) throws {
    try self.init(
      inChannels, outChannels, kernel: Size2(kernel),
      options: ConvolutionOptions(
        stride: Size2(stride), padding: Padding(padding ?? dilation * (kernel / 2)),
        dilation: Size2(dilation), groups: groups, activation: activation),
      bias: bias, deviation: deviation, initializer)
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor { try run(input, options) }

  public func beforeActivation(_ input: Tensor) throws -> Tensor {
    var linear = options
    linear.activation = .none
    return try run(input, linear)
  }

  private func run(_ input: Tensor, _ options: ConvolutionOptions) throws -> Tensor {
    let output = try input.conv2d(weight, bias: bias, options)
    FLOPCounter.reportConvolution(self, weight: weight, input: input, output: output)
    return output
  }

  public override var summary: String {
    let s = weight.shape
    return "Conv2d(\(s[1] * options.groups), \(s[0]), \(s[2])x\(s[3]), stride \(options.stride)"
      + (options.groups > 1 ? ", groups \(options.groups))" : ")")
  }
}
