import KDSKernels
import KDSTensor

/// Source of initial values: each tensor gets its own stream, so adding a layer leaves the others' values alone.
public final class Initializer {
  private let seed: UInt64
  private var stream: UInt64

  /// - Parameters:
  ///   - seed: the user's seed.
  ///   - stream: where to start counting; connectors start elsewhere than models, so that a method with
  ///     adapters leaves the student's initial weights unchanged.
  public init(seed: UInt64, stream: UInt64 = 0) {
    self.seed = seed
    self.stream = stream
  }

  /// Normal with the given standard deviation.
  public func normal(_ shape: [Int], deviation: Float) throws -> Tensor {
    let tensor = try Tensor(uninitialized: shape)
    var random = next()
    for index in 0..<tensor.count { tensor.floats[index] = random.normal() * deviation }
    return tensor
  }

  /// Uniform in [-bound, bound).
  public func uniform(_ shape: [Int], bound: Float) throws -> Tensor {
    let tensor = try Tensor(uninitialized: shape)
    var random = next()
    for index in 0..<tensor.count { tensor.floats[index] = (random.uniform() * 2 - 1) * bound }
    return tensor
  }

  /// He et al. 2015 for ReLU networks: normal with variance 2 / fan, fan in or fan out.
  public func kaimingNormal(_ shape: [Int], fanOut: Bool = false) throws -> Tensor {
    let area = shape.dropFirst(2).reduce(1, *)
    let fan = (fanOut ? shape[0] : shape[1]) * area
    return try normal(shape, deviation: (2 / Float(max(fan, 1))).squareRoot())
  }

  /// PyTorch's default for linear layers and convolutions: uniform with bound 1 / sqrt(fan in).
  public func torchDefault(_ shape: [Int], fanIn: Int) throws -> Tensor {
    try uniform(shape, bound: 1 / Float(max(fanIn, 1)).squareRoot())
  }

  private func next() -> CounterRandom {
    defer { stream &+= 1 }
    return CounterRandom(seed: seed, stream: stream)
  }
}
