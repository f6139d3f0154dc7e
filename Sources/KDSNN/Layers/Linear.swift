import KDSTensor

/// A linear layer with parameters `weight` (out, in) and `bias` (out).
public final class Linear: Module {
  public let weight: Tensor
  public let bias: Tensor?
  public var activation: Activation

  /// From weights.
  public init(weight: Tensor, bias: Tensor?, activation: Activation = .none) {
    self.weight = weight
    self.bias = bias
    self.activation = activation
    super.init()
    parameter("weight", weight)
    if let bias { parameter("bias", bias) }
  }

  /// From sizes; He initialization unless `deviation` gives the standard deviation of a normal.
  public convenience init(
    _ inputs: Int, _ outputs: Int, bias: Bool = true, activation: Activation = .none,
    deviation: Float? = nil, _ initializer: Initializer
  ) throws {
    let weight =
      try deviation.map { try initializer.normal([outputs, inputs], deviation: $0) }
      ?? initializer.kaimingNormal([outputs, inputs])
    self.init(
      weight: weight, bias: bias ? try Tensor.zeros([outputs]) : nil, activation: activation)
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    let output = try input.linear(weight, bias: bias, activation: activation)
    FLOPCounter.reportLinear(self, weight: weight, input: input, output: output)
    return output
  }

  public override var summary: String { "Linear(\(weight.shape[1]), \(weight.shape[0]))" }
}
