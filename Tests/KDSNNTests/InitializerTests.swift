import KDSNN
import KDSTensor
import Testing

@Suite struct InitializerTests {
  private func moments(_ tensor: Tensor) throws -> (mean: Double, deviation: Double) {
    let values = try tensor.values().map(Double.init)
    let mean = values.reduce(0, +) / Double(values.count)
    let square = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
    return (mean, square.squareRoot())
  }

  /// - Parameter kurtosis: of the distribution, 3 for a normal one, 1.8 for a uniform one.
  private func check(_ tensor: Tensor, deviation: Double, kurtosis: Double) throws {
    let (mean, found) = try moments(tensor)
    let n = Double(tensor.count)
    // Five standard errors of the mean and of the deviation.
    #expect(abs(mean) < 5 * deviation / n.squareRoot())
    #expect(abs(found - deviation) < 5 * deviation * ((kurtosis - 1) / (4 * n)).squareRoot())
  }

  @Test func momentsAreThoseAskedFor() throws {
    let make = Initializer(seed: 4)
    try check(make.normal([100, 300], deviation: 0.01), deviation: 0.01, kurtosis: 3)
    // He: variance 2 / (fan in) with 16 · 3 · 3 inputs, or 64 · 3 · 3 outputs.
    let shape = [64, 16, 3, 3]
    try check(
      make.kaimingNormal(shape), deviation: (2.0 / 144).squareRoot(), kurtosis: 3)
    try check(
      make.kaimingNormal(shape, fanOut: true), deviation: (2.0 / 576).squareRoot(), kurtosis: 3)
    try check(make.uniform([30_000], bound: 2), deviation: 2 / 3.0.squareRoot(), kurtosis: 1.8)
    let torch = try make.torchDefault([100, 64], fanIn: 64)
    try check(torch, deviation: 0.125 / 3.0.squareRoot(), kurtosis: 1.8)
    #expect(try torch.values().allSatisfy { abs($0) <= 0.125 })
  }

  @Test func oneSeedOneSequence() throws {
    func draw(_ seed: UInt64, _ stream: UInt64 = 0, skip: Int = 0) throws -> [Float] {
      let make = Initializer(seed: seed, stream: stream)
      for size in 0..<skip { _ = try make.normal([1 + size], deviation: 1) }
      return try make.normal([40], deviation: 1).values()
    }
    #expect(try draw(1) == draw(1))
    #expect(try draw(1) != draw(2))
    #expect(try draw(1, 1) != draw(1))
    // The third tensor does not depend on the sizes of the first two.
    #expect(try draw(1, skip: 2) == draw(1, 2))
  }

  @Test func layersStartAsPublished() throws {
    let make = Initializer(seed: 2)
    let convolution = try Conv2d(32, 64, kernel: 3, make)
    try check(convolution.weight, deviation: (2.0 / 288).squareRoot(), kurtosis: 3)
    let fixed = try Conv2d(32, 64, kernel: 3, deviation: 0.01, make)
    try check(fixed.weight, deviation: 0.01, kurtosis: 3)
    let linear = try Linear(300, 100, deviation: 0.001, make)
    try check(linear.weight, deviation: 0.001, kurtosis: 3)
    for bias in [convolution.bias, fixed.bias, linear.bias] {
      #expect(try #require(bias).values().allSatisfy { $0 == 0 })
    }
  }
}
