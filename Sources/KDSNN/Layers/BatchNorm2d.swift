import KDSTensor

/// Batch normalization with parameters `weight`, `bias` and buffers `running_mean`, `running_var` (C).
///
/// In training it uses the batch's statistics and moves the running ones; in evaluation, or when
/// `frozen`, it is one multiplication and addition per element with the running ones.
public final class BatchNorm2d: Module {
  public let weight, bias, runningMean, runningVariance: Tensor
  public let epsilon: Float
  /// Share of the batch in the running statistics (PyTorch's convention).
  public let momentum: Float
  /// Statistics and parameters never change (`norm="frozen_batch"`).
  public let frozen: Bool
  public var activation: Activation

  public init(
    channels: Int, epsilon: Float = 1e-5, momentum: Float = 0.1, frozen: Bool = false,
    activation: Activation = .none
  ) throws {
    weight = try Tensor(filled: 1, shape: [channels])
    bias = try Tensor.zeros([channels])
    runningMean = try Tensor.zeros([channels])
    runningVariance = try Tensor(filled: 1, shape: [channels])
    self.epsilon = epsilon
    self.momentum = momentum
    self.frozen = frozen
    self.activation = activation
    super.init()
    if frozen {
      buffer("weight", weight)
      buffer("bias", bias)
    } else {
      parameter("weight", weight)
      parameter("bias", bias)
    }
    buffer("running_mean", runningMean)
    buffer("running_var", runningVariance)
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    try run(input, activation)
  }

  public func beforeActivation(_ input: Tensor) throws -> Tensor { try run(input, .none) }

  private func run(_ input: Tensor, _ activation: Activation) throws -> Tensor {
    if isTraining && !frozen {
      let result = try input.batchNormTraining(
        scale: weight, shift: bias, epsilon: epsilon, activation: activation)
      moveRunning(result, samples: input.count / max(1, input.shape[1]))
      return result.output
    }
    let (scale, shift) = try affine()
    return try input.channelAffine(scale: scale, shift: shift, activation: activation)
  }

  /// The multiplication and addition that evaluation does: scale = weight / sqrt(var + ε),
  /// shift = bias − mean · scale. On the tape when weight and bias learn.
  public func affine() throws -> (scale: Tensor, shift: Tensor) {
    let inverse = try Tensor(uninitialized: weight.shape)
    let shift = try Tensor(uninitialized: weight.shape)
    let scale = try Tensor(uninitialized: weight.shape)
    for index in 0..<weight.count {
      inverse.floats[index] = 1 / (runningVariance.floats[index] + epsilon).squareRoot()
      scale.floats[index] = weight.floats[index] * inverse.floats[index]
      shift.floats[index] =
        bias.floats[index] - runningMean.floats[index] * scale.floats[index]
    }
    let mean = runningMean
    Tape.record(scale, "batch_norm_scale", [weight]) { gradient in
      let toWeight = try Tensor(uninitialized: inverse.shape)
      for index in 0..<inverse.count {
        toWeight.floats[index] = gradient.floats[index] * inverse.floats[index]
      }
      return [toWeight]
    }
    Tape.record(shift, "batch_norm_shift", [bias, weight]) { gradient in
      let toWeight = try Tensor(uninitialized: inverse.shape)
      for index in 0..<inverse.count {
        toWeight.floats[index] =
          -gradient.floats[index] * mean.floats[index] * inverse.floats[index]
      }
      return [gradient, toWeight]
    }
    return (scale, shift)
  }

  private func moveRunning(_ batch: BatchNormResult, samples: Int) {
    // PyTorch normalizes with the biased variance but remembers the unbiased one.
    let correction = samples > 1 ? Float(samples) / Float(samples - 1) : 1
    for index in 0..<weight.count {
      runningMean.floats[index] += momentum * (batch.mean.floats[index] - runningMean.floats[index])
      runningVariance.floats[index] +=
        momentum * (batch.variance.floats[index] * correction - runningVariance.floats[index])
    }
    runningMean.markChanged()
    runningVariance.markChanged()
  }

  public override var summary: String { "BatchNorm2d(\(weight.count))" }
}
