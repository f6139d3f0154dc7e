import KDSDistill
import KDSTensor
import KDSTestSupport
import Testing

private struct Fixture: Codable {
  struct Case: Codable {
    var key: UInt64
    var shape, ranks: [Int]
    var error: Double
  }
  var versions: [String: String]
  var cases: [Case]
}

@Suite struct TuckerFactorTests {
  private func kernel(_ outputs: Int, _ inputs: Int, _ area: Int, key: UInt64 = 1) throws
    -> TuckerKernel
  {
    let values = try pattern([outputs, inputs, area], key: key).values().map(Double.init)
    return TuckerKernel(weights: values, outputs: outputs, inputs: inputs, area: area)
  }

  /// ‖K − K̂‖ / ‖K‖, element by element.
  private func distance(_ kernel: TuckerKernel, _ factors: TuckerFactors) -> Double {
    let made = factors.reconstructed(inputs: kernel.inputs, area: kernel.area)
    var difference = kernel.byOutput
    for index in difference.values.indices { difference.values[index] -= made.values[index] }
    return (difference.squaredNorm / kernel.byOutput.squaredNorm).squareRoot()
  }

  private func isOrthonormal(_ rows: Matrix) -> Bool {
    let product = rows.gram()
    return product.values.enumerated().allSatisfy { index, value in
      // Eigenvectors of LAPACK: some rounding errors of doubles.
      abs(value - (index / rows.rows == index % rows.rows ? 1 : 0)) < 1e-12
    }
  }

  @Test(arguments: [(12, 10, 9), (8, 3, 25), (6, 20, 1)])
  func fullRanksReconstruct(outputs: Int, inputs: Int, area: Int) throws {
    let kernel = try kernel(outputs, inputs, area)
    let full = TuckerRanks(input: inputs, output: outputs)
    #expect(try distance(kernel, TuckerFactors(kernel, full)) < 1e-12)
    let one = TuckerRanks(input: nil, output: outputs)
    #expect(try distance(kernel, TuckerFactors(kernel, one)) < 1e-12)
  }

  @Test(arguments: [(1, 1), (3, 2), (4, 7), (10, 3)])
  func factorsAreOrthonormalAndTheErrorIsTheOneSaid(input: Int, output: Int) throws {
    let kernel = try kernel(12, 10, 9)
    let factors = try TuckerFactors(kernel, TuckerRanks(input: input, output: output))
    #expect(isOrthonormal(try #require(factors.input)))
    #expect(isOrthonormal(factors.output))
    #expect(factors.core.rows == output && factors.core.columns == input * 9)
    #expect(abs(factors.error - distance(kernel, factors)) < 1e-9)
    for (before, after) in zip(factors.errors, factors.errors.dropFirst()) {
      #expect(after <= before + 1e-12, "an iteration made it worse")
    }
  }

  @Test func iterationBeatsItsStart() throws {
    let kernel = try kernel(16, 12, 9)
    let factors = try TuckerFactors(kernel, TuckerRanks(input: 4, output: 4))
    #expect(factors.errors.count > 2)
    #expect(factors.error < factors.errors[0] - 1e-3)
    let start = try TuckerFactors(kernel, TuckerRanks(input: 4, output: 4), iterations: 0)
    #expect(start.errors == [factors.errors[0]])
    #expect(abs(start.error - distance(kernel, start)) < 1e-9)
  }

  @Test func exactTuckerRanksAreRecovered() throws {
    let (outputs, inputs, area) = (9, 7, 9)
    let core = try kernel(2, 3, area, key: 5)
    let left = try Matrix(outputs, 2, pattern([outputs, 2], key: 6).values().map(Double.init))
    let right = try Matrix(inputs, 3, pattern([inputs, 3], key: 7).values().map(Double.init))
    // S × (R4 D) to R4 × (S D), then the output side.
    let half = TuckerKernel.swapped(right.times(core.byInput), inputs, 2, area)
    let values = left.times(half).values
    let low = TuckerKernel(weights: values, outputs: outputs, inputs: inputs, area: area)
    let exact = try TuckerFactors(low, TuckerRanks(input: 3, output: 2))
    #expect(distance(low, exact) < 1e-12)
    let short = try TuckerFactors(low, TuckerRanks(input: 2, output: 2))
    #expect(distance(low, short) > 1e-2)
    #expect(
      try low.estimatedRanks(tucker1: false, exactBound: false) == TuckerRanks(input: 3, output: 2))
  }

  /// TensorLy iterates to 1e-12; both stop near the same optimum, ours by its tolerance of 1e-6 relative
  /// per iteration. A worse decomposition would show in the third digit (HOSVD alone does).
  @Test(arguments: 0..<3)
  func errorEqualsTensorLy(index: Int) throws {
    let text = try fixtureText("tucker.json")
    let expected = try StrictJSON.decode(Fixture.self, text, what: "tucker.json").cases[index]
    let shape = expected.shape
    let kernel = try kernel(shape[0], shape[1], shape[2] * shape[3], key: expected.key)
    let ranks = TuckerRanks(input: expected.ranks[0], output: expected.ranks[1])
    let error = try TuckerFactors(kernel, ranks).error
    #expect(abs(error - expected.error) < 2e-4 * expected.error, "\(error)")
  }

  @Test func badWeightsAreRefused() {
    let broken = TuckerKernel(weights: [1, .nan, 2, 3], outputs: 2, inputs: 2, area: 1)
    #expect(throws: KDSError.self) {
      try TuckerFactors(broken, TuckerRanks(input: 1, output: 1))
    }
  }
}
