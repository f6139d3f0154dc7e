import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// Neighbouring entries of D around a value and the rule of equation 3, entry by entry.
private func definition(_ value: Float, _ entries: [Double]) -> Float {
  for index in entries.indices {
    let above = index + 1 < entries.count ? entries[index + 1] : .infinity
    if Double(value) <= (entries[index] + above) / 2 { return Float(entries[index]) }
  }
  return .nan
}

private let uniform = (0...200).map { Double($0) }
private let powers = [0.0] + (0...12).map { Double(1 << $0) }

@Suite struct QuantizeTests {
  /// 19 channels do not fill blocks: Q(0) = 0 must hold in the padding.
  private let map = [2, 19, 3, 5]

  @Test func tableOfTheSpecification() throws {
    let half: Float = 0.5
    let input: [Float] = [
      -3, 0, -0.0, half, half.nextUp, 1, 1.5, Float(1.5).nextUp, 2.5, 1000.4, 8_388_609, 16_777_215,
    ]
    let wanted: [Float] = [0, 0, 0, 0, 1, 1, 1, 2, 2, 1000, 8_388_609, 16_777_215]
    #expect(try tensor(input, [input.count]).quantized().values() == wanted)
  }

  @Test(arguments: [QuantizerForm.uniform, .powerOfTwo], [Float(1), 0.25, 3])
  func definitionHoldsInEveryLayout(_ form: QuantizerForm, _ step: Float) throws {
    let entries = form == .uniform ? uniform : powers
    let testCase = OpCase(
      "quantize", [map], large: [[2, 40, 30, 31]], range: -5 * step...40 * step,
      // A quotient next to a tie may fall to either side; powers of two divide exactly.
      reference: { $0[0].map { definition($0 / step, entries) * step } }, gradients: [],
      build: { try $0[0].quantized(step: step, form: form) })
    try check(testCase)
  }

  @Test func powersTieDownToo() throws {
    let input: [Float] = [0.5, 0.6, 1.5, 1.6, 3, 3.1, 6, 6.1, 12, 13, 1e6, -1]
    let wanted: [Float] = [0, 1, 1, 2, 2, 4, 4, 8, 8, 16, 1_048_576, 0]
    #expect(try tensor(input, [12]).quantized(form: .powerOfTwo).values() == wanted)
  }

  @Test func invariants() throws {
    let x = try pattern([4000], key: 3, scale: 60)
    for form in QuantizerForm.allCases {
      for step: Float in [1, 0.5, 0.3] {
        let once = try x.quantized(step: step, form: form)
        #expect(try once.quantized(step: step, form: form).values() == once.values())
        #expect(try x.relu().quantized(step: step, form: form).values() == once.values())
        let order = try zip(x.values(), once.values()).sorted { $0.0 < $1.0 }.map(\.1)
        #expect(zip(order, order.dropFirst()).allSatisfy { $0 <= $1 })
      }
    }
    let gap = try zip(x.values(), x.quantized(step: 0.5).values()).filter { $0.0 >= 0 }
    #expect(gap.allSatisfy { abs($0.0 - $0.1) <= 0.25 })
    let scaled = try x.multiplied(by: 4).quantized().multiplied(by: 0.25)
    #expect(try x.quantized(step: 0.25).values() == scaled.values())
  }

  @Test(arguments: [Layout.plain, .blocked(8), .blocked(16)])
  func gradientGoesStraightThrough(_ layout: Layout) throws {
    let upstream = try pattern(map, key: 5)
    for relu in [false, true] {
      let leaf = try pattern(map, key: 4, scale: 6)
      leaf.requiresGrad = true
      let output = try leaf.inLayout(layout).quantized(relu: relu)
      try Tape.backward(from: output, seed: upstream.inLayout(layout))
      let wanted = try zip(leaf.values(), upstream.values()).map { !relu || $0 > 0 ? $1 : 0 }
      #expect(try leaf.gradient?.values() == wanted)
    }
  }

  @Test func commutesWithMaxPooling() throws {
    let x = try pattern([1, 5, 9, 7], key: 6, scale: 12)
    let options = PoolingOptions(kernel: Size2(3), stride: Size2(2), padding: Padding(1))
    let before = try x.quantized().pool2d(options).values()
    #expect(try x.pool2d(options).quantized().values() == before)
  }

  @Test func badMapsAndStepsAreReported() throws {
    for value: Float in [.nan, .infinity, -.infinity] {
      let x = try tensor([1, value, 2], [3])
      for form in QuantizerForm.allCases {
        #expect(throws: KDSError.self) { try x.quantized(form: form) }
      }
    }
    let x = try tensor([1, 2], [2])
    for step: Float in [0, -1, .nan, .infinity] {
      #expect(throws: KDSError.self) { try x.quantized(step: step) }
    }
    #expect(throws: KDSError.self) { try integers([1], [1]).quantized() }
    #expect(try tensor([.greatestFiniteMagnitude], [1]).quantized(step: 1e-30).values().count == 1)
    #expect(try Tensor.zeros([0, 3]).quantized().values() == [])
  }
}
