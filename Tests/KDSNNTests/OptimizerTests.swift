import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

/// The optimizers by parameter name, against PyTorch: `tools/fixtures/generate_detection.py`.
@Suite struct OptimizerTests {
  static let cases: [(String, (inout OptimizerConfiguration) -> Void)] = [
    ("sgd", { $0.momentum = 0.9 }),
    (
      "sgd_nesterov",
      {
        $0.momentum = 0.8
        $0.nesterov = true
      }
    ), ("sgd_plain", { $0.momentum = 0 }), ("adam", { $0.name = "adam" }),
    ("adamw", { $0.name = "adamw" }),
  ]

  private func configuration(
    _ change: (inout OptimizerConfiguration) -> Void
  ) -> OptimizerConfiguration {
    var c = OptimizerConfiguration()
    c.weight_decay = 0.02
    c.beta1 = 0.8
    c.beta2 = 0.99
    c.epsilon = 1e-6
    c.bias_lr_factor = 2
    c.decay_bias_and_norm = false
    change(&c)
    return c
  }

  /// Ten steps with a rate that changes, a bias with twice the rate and no decay.
  @Test(arguments: 0..<cases.count)
  func tenStepsEqualPyTorch(index: Int) throws {
    let (name, change) = Self.cases[index]
    let fixture = try Fixture("detection")
    let weight = try tensor(fixture.floats("optimizers/weight"), [3, 4])
    let bias = try tensor(fixture.floats("optimizers/bias"), [3])
    let slopes = try fixture.floats("optimizers/gradients")
    let rates = try fixture.floats("optimizers/rates")
    let optimizer = try Optimizer(configuration(change))
    for entry in [weight, bias] { entry.requiresGrad = true }
    for step in 0..<10 {
      weight.gradient = try tensor(Array(slopes[15 * step..<15 * step + 12]), [3, 4])
      bias.gradient = try tensor(Array(slopes[15 * step + 12..<15 * step + 15]), [3])
      try optimizer.step(
        [("layer.weight", weight), ("layer.bias", bias)], learningRate: Double(rates[step]))
    }
    // Ten updates of at most 0.3 each in single precision; rounding of 1e-7 each.
    #expect(gap(try weight.values(), try fixture.floats("optimizers/\(name)_weight")) < 3e-6)
    #expect(gap(try bias.values(), try fixture.floats("optimizers/\(name)_bias")) < 3e-6)
    let kinds = Set(optimizer.state.keys.map { $0.split(separator: "/")[0] })
    let expected: Set<Substring> =
      name.hasPrefix("adam")
      ? ["first", "second", "steps"] : name == "sgd_plain" ? [] : ["momentum"]
    #expect(kinds == expected)
  }

  /// What is restored continues: 4 + 6 steps in two optimizers equal 10 in one, bit for bit.
  @Test(arguments: 0..<cases.count)
  func aRestoredOptimizerContinues(index: Int) throws {
    func run(breakAt: Int?) throws -> [Float] {
      let weight = try Initializer(seed: 1).normal([3, 4], deviation: 1)
      weight.requiresGrad = true
      var optimizer = try Optimizer(configuration(Self.cases[index].1))
      for step in 0..<10 {
        if step == breakAt {
          let next = try Optimizer(optimizer.configuration)
          for (name, value) in optimizer.state { try next.restore(name, value) }
          optimizer = next
        }
        weight.gradient = try Initializer(seed: 2, stream: UInt64(step)).normal(
          [3, 4], deviation: 1)
        try optimizer.step([("w", weight)], learningRate: 0.05)
      }
      return try weight.values()
    }
    #expect(try run(breakAt: nil) == run(breakAt: 4))
  }

  @Test func whatHasNoGradientStays() throws {
    let optimizer = try Optimizer(OptimizerConfiguration())
    let (still, frozen) = (try tensor([1, 2], [2]), try tensor([3, 4], [2]))
    still.requiresGrad = true
    frozen.gradient = try tensor([1, 1], [2])
    let versions = (still.version, frozen.version)
    try optimizer.step([("still", still), ("frozen", frozen)], learningRate: 1)
    #expect(try still.values() == [1, 2] && frozen.values() == [3, 4])
    #expect((still.version, frozen.version) == versions && optimizer.state.isEmpty)
  }

  @Test func anUpdateIsAnnounced() throws {
    let weight = try tensor([1, 2], [2])
    weight.requiresGrad = true
    weight.gradient = try tensor([1, 1], [2])
    let before = weight.version
    try Optimizer(OptimizerConfiguration()).step([("w", weight)], learningRate: 0.5)
    // Packed copies of a weight compare versions.
    #expect(weight.version != before)
  }

  @Test func clippingScalesTheGradientOnly() throws {
    func weight(_ gradient: [Float], _ scale: Float) throws -> [Float] {
      let w = try tensor([1, 2], [2])
      w.requiresGrad = true
      w.gradient = try tensor(gradient, [2])
      var c = OptimizerConfiguration()
      c.weight_decay = 0.5
      try Optimizer(c).step([("w", w)], learningRate: 0.5, gradientScale: scale)
      #expect(try w.gradient?.values() == gradient)
      return try w.values()
    }
    #expect(try weight([8, -4], 0.25) == weight([2, -1], 1))
  }

  @Test(arguments: [
    ("sgd\"", { (c: inout OptimizerConfiguration) in c.name = "lion" }), ("lr", { $0.lr = .nan }),
    ("lr", { $0.lr = -1 }), ("momentum", { $0.momentum = 1 }), ("beta1", { $0.beta1 = 1 }),
    ("epsilon", { $0.epsilon = .infinity }), ("weight_decay", { $0.weight_decay = -0.1 }),
    ("bias_lr_factor", { $0.bias_lr_factor = .nan }),
  ])
  func badOptionsAreNamed(name: String, change: (inout OptimizerConfiguration) -> Void) throws {
    var c = OptimizerConfiguration()
    change(&c)
    let error = #expect(throws: KDSError.self) { try Optimizer(c) }
    #expect("\(error!)".contains(name))
  }
}

/// Largest |found - wanted| / max(1, |wanted|); infinite for unlike counts or NaN.
func gap(_ found: [Float], _ wanted: [Float]) -> Float {
  guard found.count == wanted.count else { return .infinity }
  return zip(found, wanted).reduce(0) { worst, pair in
    let distance = abs(pair.0 - pair.1) / max(1, abs(pair.1))
    return distance <= worst ? worst : distance.isNaN ? .infinity : distance
  }
}
