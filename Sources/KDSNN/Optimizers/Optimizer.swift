import KDSKernels
import KDSTensor

/// Options of an optimizer; PyTorch's formulas.
public struct OptimizerConfiguration: Codable, Equatable {
  /// "sgd", "adam" or "adamw".
  public var name = "sgd"
  public var lr = 0.01
  public var momentum = 0.9
  public var nesterov = false
  public var weight_decay = 1e-4
  public var beta1 = 0.9
  public var beta2 = 0.999
  public var epsilon = 1e-8
  /// Factor on the learning rate of biases; Caffe's detectors have 2.
  public var bias_lr_factor = 1.0
  /// Whether biases and normalization parameters (rank 1) decay too.
  public var decay_bias_and_norm = true

  public init() {}

  func check() throws {
    guard ["sgd", "adam", "adamw"].contains(name) else {
      throw KDSError.argument("optimizer: \"\(name)\" is none of \"sgd\", \"adam\", \"adamw\"")
    }
    for (label, value) in [
      ("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay), ("epsilon", epsilon),
      ("bias_lr_factor", bias_lr_factor), ("beta1", beta1), ("beta2", beta2),
    ] where !(value >= 0 && value.isFinite) {
      throw KDSError.argument("optimizer.\(label): \(value) must be finite and not negative")
    }
    guard beta1 < 1, beta2 < 1, momentum < 1 else {
      throw KDSError.argument("optimizer: momentum, beta1 and beta2 must be below 1")
    }
  }
}

/// Moves parameters against their gradients; keeps its state by parameter name.
public final class Optimizer {
  public let configuration: OptimizerConfiguration
  /// "momentum/NAME", or "first/NAME" and "second/NAME", and "steps/NAME" (one element).
  public private(set) var state: [String: Tensor] = [:]

  public init(_ configuration: OptimizerConfiguration) throws {
    try configuration.check()
    self.configuration = configuration
  }

  /// Puts a saved entry back.
  public func restore(_ name: String, _ value: Tensor) throws { state[name] = try value.copied() }

  /// One update of everything that has a gradient.
  ///
  /// - Parameters:
  ///   - learningRate: of this step, by the schedule.
  ///   - gradientScale: factor on all gradients, from clipping.
  public func step(
    _ parameters: [(name: String, tensor: Tensor)], learningRate: Double, gradientScale: Float = 1
  ) throws {
    for (name, tensor) in parameters where tensor.requiresGrad {
      guard let gradient = tensor.gradient else { continue }
      var scaled = gradient
      if gradientScale != 1 {
        scaled = try Tensor(uninitialized: gradient.shape)
        Kernels.scale(gradient.floats, by: gradientScale, scaled.floats, gradient.count)
      }
      try update(name, tensor, scaled, learningRate)
      tensor.markChanged()
    }
  }

  private func update(
    _ name: String, _ tensor: Tensor, _ gradient: Tensor, _ learningRate: Double
  ) throws {
    let isVector = tensor.rank <= 1
    let isBias = name.hasSuffix("bias")
    let rate = Float(learningRate * (isBias ? configuration.bias_lr_factor : 1))
    let decay =
      isVector && !configuration.decay_bias_and_norm ? 0 : Float(configuration.weight_decay)
    if configuration.name == "sgd" {
      let known = state["momentum/\(name)"] != nil
      let buffer =
        configuration.momentum > 0 ? try slot("momentum/\(name)", tensor.shape).floats : nil
      Kernels.sgdStep(
        tensor.floats, gradient.floats, buffer: buffer, tensor.count, learningRate: rate,
        momentum: Float(configuration.momentum), weightDecay: decay,
        nesterov: configuration.nesterov, firstStep: !known)
      return
    }
    let steps = try slot("steps/\(name)", [1])
    steps.floats[0] += 1
    Kernels.adamStep(
      tensor.floats, gradient.floats, first: try slot("first/\(name)", tensor.shape).floats,
      second: try slot("second/\(name)", tensor.shape).floats, tensor.count,
      step: Int(steps.floats[0]), learningRate: rate, beta1: Float(configuration.beta1),
      beta2: Float(configuration.beta2), eps: Float(configuration.epsilon), weightDecay: decay,
      decoupled: configuration.name == "adamw")
  }

  private func slot(_ name: String, _ shape: [Int]) throws -> Tensor {
    if let found = state[name] {
      guard found.shape == shape else {
        throw KDSError.shape("optimizer state \(name): shape \(found.shape), expected \(shape)")
      }
      return found
    }
    let made = try Tensor.zeros(shape)
    state[name] = made
    return made
  }
}
