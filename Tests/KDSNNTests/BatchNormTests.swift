import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

/// Batch normalization with its running statistics, against PyTorch.
@Suite struct BatchNormTests {
  let fixture: Fixture
  let shape = [2, 5, 3, 4]

  init() throws { fixture = try Fixture("detection") }

  private func layer(frozen: Bool = false, activation: Activation = .none) throws -> BatchNorm2d {
    let layer = try BatchNorm2d(
      channels: 5, epsilon: 1e-3, momentum: 0.2, frozen: frozen, activation: activation)
    for (tensor, name) in [(layer.weight, "weight"), (layer.bias, "bias")] {
      tensor.floats.update(from: try fixture.floats("batch_norm/\(name)"), count: 5)
    }
    return layer
  }

  private func input(_ step: Int) throws -> Tensor {
    let all = try fixture.floats("batch_norm/inputs")
    return try tensor(Array(all[120 * step..<120 * (step + 1)]), shape)
  }

  private func expect(_ found: Tensor?, _ name: String) throws {
    let values = try #require(found, "\(name)").values()
    // Sums of 24 values of order 1 in single precision, divided by deviations of 2.
    #expect(gap(values, try fixture.floats("batch_norm/\(name)")) < 1e-5, "\(name)")
  }

  @Test func trainingEqualsPyTorch() throws {
    let layer = try layer()
    for step in 0..<3 {
      let x = try input(step)
      x.requiresGrad = true
      layer.clearGradients()
      let y = try layer(x)
      try expect(y, "output_\(step)")
      let upstream = try tensor(fixture.floats("batch_norm/upstream_\(step)"), shape)
      try Tape.backward(from: y, seed: upstream)
      try expect(x.gradient, "grad_input_\(step)")
      try expect(layer.weight.gradient, "grad_weight_\(step)")
      try expect(layer.bias.gradient, "grad_bias_\(step)")
      try expect(layer.runningMean, "mean_\(step)")
      try expect(layer.runningVariance, "variance_\(step)")
    }
  }

  /// After the three steps: running statistics, gradients to weight and bias all the same.
  private func checkEvaluation(_ layer: BatchNorm2d, learns: Bool) throws {
    layer.runningMean.floats.update(from: try fixture.floats("batch_norm/mean_2"), count: 5)
    layer.runningVariance.floats.update(from: try fixture.floats("batch_norm/variance_2"), count: 5)
    let x = try input(0)
    x.requiresGrad = true
    let y = try layer(x)
    try expect(y, "evaluated")
    let upstream = try tensor(fixture.floats("batch_norm/eval_upstream"), shape)
    try Tape.backward(from: y, seed: upstream)
    try expect(x.gradient, "eval_grad_input")
    if learns {
      try expect(layer.weight.gradient, "eval_grad_weight")
      try expect(layer.bias.gradient, "eval_grad_bias")
    } else {
      #expect(layer.weight.gradient == nil && layer.bias.gradient == nil)
    }
    try expect(layer.runningMean, "mean_2")
    try expect(layer.runningVariance, "variance_2")
  }

  @Test func evaluationEqualsPyTorch() throws {
    let layer = try layer(activation: .relu)
    layer.setTraining(false)
    try checkEvaluation(layer, learns: true)
  }

  /// Frozen: evaluation's numbers even in training, nothing moves, nothing learns.
  @Test func frozenIsEvaluationForEver() throws {
    let layer = try layer(frozen: true, activation: .relu)
    layer.setTraining(true)
    try checkEvaluation(layer, learns: false)
    #expect(layer.namedParameters().isEmpty)
    #expect(layer.namedBuffers().map(\.name) == ["weight", "bias", "running_mean", "running_var"])
  }

  @Test func runningStatisticsAreNotLearned() throws {
    let layer = try layer()
    #expect(layer.namedParameters().map(\.name) == ["weight", "bias"])
    #expect(layer.namedBuffers().map(\.name) == ["running_mean", "running_var"])
    let version = layer.runningMean.version
    _ = try layer(input(0))
    #expect(layer.runningMean.version != version && !layer.runningMean.isTracked)
  }
}
