import KDSKernels
import KDSTensor

/// Group normalization with parameters `weight`, `bias` (C).
public final class GroupNorm2d: Module, UnaryLayer {
  public let weight, bias: Tensor
  public let groups: Int
  public let epsilon: Float
  public var activation: Activation

  public init(
    channels: Int, groups: Int, epsilon: Float = 1e-5, activation: Activation = .none
  ) throws {
    weight = try Tensor(filled: 1, shape: [channels])
    bias = try Tensor.zeros([channels])
    self.groups = groups
    self.epsilon = epsilon
    self.activation = activation
    super.init()
    parameter("weight", weight)
    parameter("bias", bias)
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    throw KDSError.runtime("group_norm: not available")
  }
}
