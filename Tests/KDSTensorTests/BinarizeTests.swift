import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

@Suite struct BinarizeTests {
  private let map = [2, 19, 3, 5]

  /// Section 2 of the paper: α B is the best binary approximation.
  @Test func scaleAndSignsAreOptimal() throws {
    let weight: [Float] = [1, -2, 3, -4]
    let found = try tensor(weight, [1, 4]).binaryFilters().values()
    #expect(found == [2.5, -2.5, 2.5, -2.5])
    func residual(_ other: [Float]) -> Float {
      zip(weight, other).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    }
    #expect(residual(found) == 5)
    for signs in 0..<16 {
      for scale in stride(from: Float(0), through: 5, by: 0.125) {
        let other = (0..<4).map { signs >> $0 & 1 == 1 ? scale : -scale }
        #expect(residual(other) >= 5)
      }
    }
    #expect(try Tensor.zeros([2, 3, 1, 1]).binaryFilters().values() == [0, 0, 0, 0, 0, 0])
  }

  @Test(arguments: [Layout.plain, .blocked(8), .blocked(16)])
  func signsPassGradientsInside(_ layout: Layout) throws {
    let upstream = try pattern(map, key: 2)
    let leaf = try pattern(map, key: 1, scale: 4)
    (leaf.floats[0], leaf.floats[1]) = (1, -1)
    for strict in [false, true] {
      leaf.requiresGrad = true
      leaf.gradient = nil
      let output = try leaf.inLayout(layout).binarySign(strict: strict)
      #expect(try output.values() == leaf.values().map { $0 < 0 ? -1 : 1 })
      if case .blocked = layout { #expect(output.floats[output.storedCount - 1] == 0) }
      try Tape.backward(from: output, seed: upstream.inLayout(layout))
      let wanted = try zip(leaf.values(), upstream.values()).map {
        abs($0) < 1 || (!strict && abs($0) == 1) ? $1 : 0
      }
      #expect(try leaf.gradient?.values() == wanted)
    }
  }

  @Test(arguments: BinaryGradient.allCases)
  func weightsGetTheGradientOfTheFormula(_ rule: BinaryGradient) throws {
    let shape = [5, 7, 3, 2]
    let weight = try pattern(shape, key: 3, scale: 3)
    let upstream = try pattern(shape, key: 4)
    weight.requiresGrad = true
    try Tape.backward(from: weight.binaryFilters(rule), seed: upstream)
    let (n, channels) = (Float(42), Float(7))
    for filter in 0..<5 {
      let places = filter * 42..<(filter + 1) * 42
      let alpha = places.reduce(Float(0)) { $0 + abs(weight.floats[$1]) } / n
      for place in places {
        let inside: Float = abs(weight.floats[place]) < 1 ? 1 : 0
        var factor = alpha * inside + 1 / n
        if rule == .official { factor *= 1 - 1 / channels }
        let gap = weight.gradient!.floats[place] - factor * upstream.floats[place]
        #expect(abs(gap) < 1e-6)
      }
    }
  }

  @Test func realWeightsMoveAndSignsFollow() throws {
    let weight = try tensor([0.1, -0.2, 0.3, -0.4], [1, 4, 1, 1])
    let input = try tensor([1, 1, 1, 1], [1, 4, 1, 1])
    #expect(try input.binaryConv2d(weight).values() == [0])
    weight.floats[1] = 0.2
    weight.markChanged()
    #expect(try input.binaryConv2d(weight).values() == [0.5])
  }

  @Test func bitsHaveTheirLevels() throws {
    let third = Float(1) / 3
    let x = try tensor([-2, -1, -0.7, -0.5, -0.1, 0, 0.1, 0.5, 0.7, 1, 2], [11])
    #expect(try x.quantizedBits(1).values() == [-1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1])
    let two = try x.quantizedBits(2).values()
    let wanted: [Float] = [-1, -1, -1, -third, -third, third, third, third, 1, 1, 1]
    for (a, b) in zip(two, wanted) { #expect(abs(a - b) < 1e-6) }
    let random = try pattern([3000], key: 5, scale: 1.99)
    for bits in [1, 2, 3, 4, 8] {
      let once = try random.quantizedBits(bits)
      #expect(try once.quantizedBits(bits).values() == once.values())
      let mirrored = try random.negated().quantizedBits(bits).negated().values()
      let levels = Float((1 << bits) - 1)
      for (place, pair) in zip(mirrored, try once.values()).enumerated() {
        let level = levels * (random.floats[place] + 1) / 2
        if abs(level - level.rounded(.down) - 0.5) < 1e-3 { continue }
        #expect(abs(pair.0 - pair.1) < 1e-6)
      }
    }
    #expect(throws: KDSError.self) { try x.quantizedBits(0) }
    #expect(throws: KDSError.self) { try x.quantizedBits(17) }
  }

  @Test func authorsPreparationCentersAndLimits() throws {
    let weight = try pattern([3, 6, 2, 2], key: 6, scale: 5)
    let before = try weight.values()
    try weight.centerFilters()
    for filter in 0..<3 {
      for tap in 0..<4 {
        let places = (0..<6).map { (filter * 6 + $0) * 4 + tap }
        let mean = places.reduce(Float(0)) { $0 + before[$1] } / 6
        for place in places {
          #expect(abs(weight.floats[place] - min(max(before[place] - mean, -1), 1)) < 1e-6)
        }
      }
    }
  }

  @Test func gradientsFlowThroughTheConvolution() throws {
    let input = try pattern([2, 6, 5, 4], key: 7, scale: 3)
    let weight = try pattern([4, 6, 3, 3], key: 8)
    let bias = try pattern([4], key: 9)
    let padded = ConvolutionOptions(padding: Padding(1))
    for leaf in [input, weight, bias] { leaf.requiresGrad = true }
    let output = try input.binaryConv2d(weight, bias: bias, padded)
    let upstream = try pattern(output.shape, key: 10)
    try Tape.backward(from: output, seed: upstream.inLayout(output.layout))
    // The same by parts: the gradient of an ordinary convolution of what the signs give.
    let (signs, filters) = (
      try input.detached().binarySign(), try weight.detached().binaryFilters()
    )
    (signs.requiresGrad, filters.requiresGrad) = (true, true)
    let plain = try signs.conv2d(filters, padded)
    try Tape.backward(from: plain, seed: upstream.inLayout(plain.layout))
    let wanted = try zip(input.values(), signs.gradient!.values()).map { abs($0) <= 1 ? $1 : 0 }
    #expect(try input.gradient!.values() == wanted)
    let sums = try upstream.summed(axes: [0, 2, 3]).values()
    for (a, b) in zip(try bias.gradient!.values(), sums) { #expect(abs(a - b) < 1e-4) }
    #expect(try weight.gradient!.values().contains { $0 != 0 })
  }
}
