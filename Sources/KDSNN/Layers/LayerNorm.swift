import KDSTensor

/// Layer normalization over the last axis (Ba et al. 2016; `torch.nn.LayerNorm`) with parameters
/// `weight`, `bias` (C).
public final class LayerNorm: Module, UnaryLayer {
  public let weight, bias: Tensor
  public let epsilon: Float

  public init(_ channels: Int, epsilon: Float = 1e-5) throws {
    weight = try Tensor(filled: 1, shape: [channels])
    bias = try Tensor.zeros([channels])
    self.epsilon = epsilon
    super.init()
    parameter("weight", weight)
    parameter("bias", bias)
  }

  /// (…, C) to the same shape.
  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    try input.layerNorm(weight: weight, bias: bias, eps: epsilon)
  }

  public override var summary: String { "LayerNorm(\(weight.count))" }
}
