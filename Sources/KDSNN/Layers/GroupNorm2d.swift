import KDSKernels
import KDSTensor

/// Group normalization (Wu and He 2018; `torch.nn.GroupNorm`) with parameters `weight`, `bias` (C).
///
/// The same in training and evaluation, so it suits batches of one or two images.
public final class GroupNorm2d: Module {
  public let weight, bias: Tensor
  public let groups: Int
  public let epsilon: Float
  public var activation: Activation

  /// - Throws: `KDSError.argument` when the groups do not divide the channels.
  public init(
    channels: Int, groups: Int, epsilon: Float = 1e-5, activation: Activation = .none
  ) throws {
    guard groups > 0, channels > 0, channels % groups == 0 else {
      throw KDSError.argument("group_norm: \(groups) groups do not divide \(channels) channels")
    }
    weight = try Tensor(filled: 1, shape: [channels])
    bias = try Tensor.zeros([channels])
    self.groups = groups
    self.epsilon = epsilon
    self.activation = activation
    super.init()
    parameter("weight", weight)
    parameter("bias", bias)
  }

  /// (N, C, H, W) in any layout to the same shape, plain.
  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    let normalized = try beforeActivation(input)
    return activation == .relu ? try normalized.relu() : normalized
  }

  public func beforeActivation(_ input: Tensor) throws -> Tensor {
    guard input.rank == 4, input.dtype == .float32, input.shape[1] == weight.count, input.count > 0
    else {
      throw KDSError.shape(
        "group_norm: input must be a non-empty (N, \(weight.count), H, W), got \(input.shape)")
    }
    return try normalize(input.plain())
  }

  private func normalize(_ source: Tensor) throws -> Tensor {
    let shape = source.shape
    let geometry = GroupNormGeometry(
      images: shape[0], channels: shape[1], area: shape[2] * shape[3], groups: groups)
    let output = try Tensor(uninitialized: shape)
    let means = try Tensor(uninitialized: [shape[0], groups])
    let inverses = try Tensor(uninitialized: [shape[0], groups])
    let (weight, bias) = (weight, bias)
    let learns = weight.isTracked || bias.isTracked
    Kernels.groupNormForward(
      source.floats, geometry, weight: weight.floats, bias: bias.floats, eps: epsilon,
      output: output.floats, means: means.floats, inverses: inverses.floats)
    return Tape.record(output, "group_norm", [source, weight, bias]) { gradient in
      let toSource = try Tensor(uninitialized: shape)
      let toWeight = try Tensor(uninitialized: weight.shape)
      let toBias = try Tensor(uninitialized: bias.shape)
      Kernels.groupNormBackward(
        input: source.floats, gradOutput: gradient.floats, geometry, weight: weight.floats,
        means: means.floats, inverses: inverses.floats, gradInput: toSource.floats,
        gradWeight: toWeight.floats, gradBias: toBias.floats)
      return learns ? [toSource, toWeight, toBias] : [toSource, nil, nil]
    }
  }

  public override var summary: String { "GroupNorm2d(\(groups), \(weight.count))" }
}
