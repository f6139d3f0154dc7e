import Testing

@testable import KDSKernels

@Suite struct RandomTests {
  /// The published vectors of Philox 4x32-10 (Random123, kat_vectors).
  @Test func knownAnswers() {
    #expect(
      philox(SIMD4(repeating: 0), key: SIMD2(repeating: 0))
        == SIMD4(0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8))
    #expect(
      philox(SIMD4(repeating: .max), key: SIMD2(repeating: .max))
        == SIMD4(0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd))
    #expect(
      philox(
        SIMD4(0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344),
        key: SIMD2(0xa409_3822, 0x299f_31d0))
        == SIMD4(0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1))
  }

  @Test func anElementDependsOnItsPlaceAlone() {
    var whole = [Float](repeating: 0, count: 1003)
    Kernels.fillNormal(&whole, 1003, seed: 3, stream: 4)
    var part = [Float](repeating: 0, count: 3)
    Kernels.fillNormal(&part, 3, seed: 3, stream: 4, offset: 500)
    #expect(part == Array(whole[500..<503]))
    var other = part
    Kernels.fillNormal(&other, 3, seed: 3, stream: 5, offset: 500)
    #expect(other != part)
  }

  @Test func moments() {
    let n = 200_000
    var x = [Float](repeating: 0, count: n)
    Kernels.fillNormal(&x, n, mean: 2, deviation: 3, seed: 1, stream: 0)
    let mean = x.reduce(0.0) { $0 + Double($1) } / Double(n)
    let variance = x.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(n)
    // Five standard errors: 5 * 3 / sqrt(n) and 5 * 9 sqrt(2 / n).
    #expect(abs(mean - 2) < 0.034 && abs(variance - 9) < 0.143)
    Kernels.fillUniform(&x, n, low: -1, high: 1, seed: 1, stream: 1)
    #expect(x.allSatisfy { $0 >= -1 && $0 < 1 })
    let centre = x.reduce(0.0) { $0 + Double($1) } / Double(n)
    #expect(abs(centre) < 5 * 0.577 / 447)
    Kernels.fillDropout(&x, n, probability: 0.25, seed: 1, stream: 2)
    let dropped = x.filter { $0 == 0 }.count
    #expect(abs(Double(dropped) / Double(n) - 0.25) < 5 * 0.433 / 447)
    #expect(x.allSatisfy { $0 == 0 || $0 == 1 / 0.75 })
  }

  @Test func samplesAreDistinctAndEven() {
    var random = CounterRandom(seed: 9, stream: 2)
    var counts = [Int](repeating: 0, count: 10)
    for _ in 0..<4000 {
      let chosen = random.sample(3, outOf: 10)
      #expect(Set(chosen).count == 3)
      for k in chosen { counts[k] += 1 }
    }
    // Binomial(4000, 0.3): five deviations are 145.
    #expect(counts.allSatisfy { abs($0 - 1200) < 145 })
    #expect(random.sample(9, outOf: 4).sorted() == [0, 1, 2, 3])
    #expect(random.sample(-1, outOf: 4).isEmpty && random.sample(2, outOf: -3).isEmpty)
    var values = Array(0..<50)
    random.shuffle(&values)
    #expect(values != Array(0..<50) && values.sorted() == Array(0..<50))
  }
}
