import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

private func sign(_ x: Float) -> Float { x < 0 ? -1 : 1 }

/// Odd sizes: channels around multiples of 64 and of 16, paddings wider than the map, gaps in the window.
private let shapes: [ConvolutionShape] = {
  func shape(
    _ channels: Int, _ filters: Int, _ height: Int, _ width: Int, kernel: Int = 3, stride: Int = 1,
    padding: Int = 1, dilation: Int = 1
  ) -> ConvolutionShape {
    ConvolutionShape(
      images: 2, inputs: channels, height: height, width: width, outputs: filters, kernel: kernel,
      stride: stride, padding: padding, dilation: dilation)
  }
  var uneven = shape(70, 9, 6, 7, kernel: 3)
  (uneven.kernelWidth, uneven.strideHeight, uneven.paddingWidth) = (2, 2, 3)
  (uneven.dilationHeight, uneven.dilationWidth) = (1, 2)
  return [
    shape(1, 1, 1, 1), shape(3, 5, 4, 5), shape(16, 16, 5, 3), shape(17, 33, 7, 7),
    shape(63, 15, 5, 6), shape(64, 16, 6, 5, stride: 2), shape(65, 17, 5, 5, dilation: 2),
    shape(100, 20, 9, 4, kernel: 5, padding: 2), shape(128, 32, 3, 3, kernel: 1, padding: 0),
    shape(130, 8, 2, 2, padding: 4, dilation: 3), shape(8, 40, 13, 11, stride: 3, padding: 0),
    uneven,
  ]
}()

private func options(_ shape: ConvolutionShape) -> ConvolutionOptions {
  let (high, wide) = (shape.paddingHeight, shape.paddingWidth)
  return ConvolutionOptions(
    stride: Size2(shape.strideHeight, shape.strideWidth),
    padding: Padding(top: high, left: wide, bottom: high, right: wide),
    dilation: Size2(shape.dilationHeight, shape.dilationWidth))
}

private func operands(_ shape: ConvolutionShape) throws -> (Tensor, Tensor) {
  let input = try pattern([shape.images, shape.inputs, shape.height, shape.width], key: 1)
  let weight = try pattern(
    [shape.outputs, shape.inputs, shape.kernelHeight, shape.kernelWidth], key: 2)
  return (input, weight)
}

@Suite struct BinaryConvolutionTests {
  /// With weights ±1 α is 1 and the result is a whole number: equality is exact.
  @Test(arguments: shapes.indices, [Layout.plain, .blocked(8), .blocked(16)])
  func countsEqualTheFloatConvolution(_ index: Int, _ layout: Layout) throws {
    let shape = shapes[index]
    let (input, weight) = try operands(shape)
    let signs = try weight.values().map(sign)
    let wanted = Reference.conv2d(try input.values().map(sign), signs, shape)
    let found = try input.inLayout(layout).binaryConv2d(
      tensor(signs, weight.shape), options(shape))
    #expect(try found.values() == wanted)
    if shape.outputs % found.layout.block != 0 {
      let (area, block) = (shape.outHeight * shape.outWidth, found.layout.block)
      let last = (shape.outputs / block + 1) * area * block
      let padding = (shape.outputs % block..<block).map { found.floats[last - block + $0] }
      #expect(padding.allSatisfy { $0 == 0 })
    }
  }

  @Test(arguments: shapes.indices) func scaleBiasAndReLU(_ index: Int) throws {
    let shape = shapes[index]
    let (input, weight) = try operands(shape)
    let bias = try pattern([shape.outputs], key: 3, scale: 20)
    var wanted = options(shape)
    wanted.activation = .relu
    let found = try input.binaryConv2d(weight, bias: bias, wanted, inputScale: true)
    let alpha = try weight.abs().mean(axes: [1, 2, 3], keepDims: true)
    let filters = zip(
      try weight.values().map(sign), (0..<weight.count).map { $0 / (weight.count / alpha.count) }
    ).map { $0 * alpha.floats[$1] }
    let scales = try input.abs().mean(axes: [1], keepDims: true)
    var box = shape
    (box.inputs, box.outputs) = (1, 1)
    let area = Float(shape.kernelHeight * shape.kernelWidth)
    let map = Reference.conv2d(
      try scales.values(), [Float](repeating: 1 / area, count: Int(area)), box)
    let plain = Reference.conv2d(try input.values().map(sign), filters, shape)
    let pixels = shape.outHeight * shape.outWidth
    let expected = plain.indices.map { place -> Float in
      let (image, pixel) = (place / pixels / shape.outputs, place % pixels)
      let sum = plain[place] * map[image * pixels + pixel]
      return max(0, sum + bias.floats[place / pixels % shape.outputs])
    }
    for (a, b) in zip(try found.values(), expected) {
      // A handful of roundings of sums up to a few hundred.
      #expect(abs(a - b) <= 1e-5 * max(1, abs(b)))
    }
    // The same on the tape, by convolution of floats.
    weight.requiresGrad = true
    let floating = try input.binaryConv2d(weight, bias: bias, wanted, inputScale: true)
    #expect(floating.isTracked)
    for (a, b) in zip(try found.values(), try floating.values()) {
      #expect(abs(a - b) <= 1e-4 * max(1, abs(b)))
    }
  }

  @Test func normalizationBeforeTheSignIsTheSame() throws {
    for channels in [5, 16, 70] {
      let input = try pattern([2, channels, 5, 6], key: 4)
      let weight = try pattern([9, channels, 3, 3], key: 5)
      let scale = try pattern([channels], key: 6)
      let shift = try pattern([channels], key: 7)
      let padded = ConvolutionOptions(padding: Padding(1))
      let filters = try PackedBinaryFilters(weight)
      for layout in [Layout.plain, .blocked(8), .blocked(16)] {
        let given = try input.inLayout(layout)
        let wanted = try given.channelAffine(scale: scale, shift: shift)
          .binaryConv2d(filters, padded)
        let found = try given.binaryConv2d(filters, padded, affine: (scale, shift))
        #expect(try found.values() == wanted.values())
      }
    }
  }

  @Test func countsWithoutTheInstruction() {
    var random = CounterRandom(seed: 3, stream: 1)
    let words = (0..<40).map { _ in random.next() }
    let filters = (0..<6 * 16).map { _ in random.next() }
    let (offsets, places): ([Int64], [Int64]) = ([0, 1, 5, 2], [0, 1, 2, 20, 21, 22])
    var sums = [Int32](repeating: -1, count: 64)
    countBits(words, offsets, 1, places, 6, filters, 6 * 64, &sums)
    for pixel in 0..<4 {
      for lane in 0..<16 {
        let wanted = (0..<6).reduce(0) { sum, step in
          let word = words[Int(offsets[pixel] + places[step])]
          return sum + (word ^ filters[step * 16 + lane]).nonzeroBitCount
        }
        #expect(sums[pixel * 16 + lane] == Int32(6 * 64 - 2 * wanted))
      }
    }
  }

  /// n − 2 · popcount(xor) is the dot product, and zeros of either sign count as +1.
  @Test func zerosArePositive() throws {
    let input = try tensor([0, -0.0, -1, 2, .nan], [1, 5, 1, 1])
    let weight = try tensor([-0.0, 0, 1, -1, 1], [1, 5, 1, 1])
    // Signs + + − + + and + + + − +, mean |W| 3/5.
    #expect(try input.binaryConv2d(weight).values() == [Float(0.6)])
    let nothing = try tensor([0, 0, 0, 0, 0], [1, 5, 1, 1])
    #expect(try input.binaryConv2d(nothing).values() == [0])
    #expect(try input.binarySign().values() == [1, 1, -1, 1, 1])
  }

  @Test func constantInputGivesItsSize() throws {
    let input = try Tensor(filled: -1.75, shape: [1, 7, 6, 6])
    let weight = try pattern([3, 7, 3, 3], key: 8)
    let padded = ConvolutionOptions(padding: Padding(1))
    let with = try input.binaryConv2d(weight, padded, inputScale: true).values()
    let without = try input.binaryConv2d(weight, padded).values()
    for place in with.indices {
      let (row, column) = (place / 6 % 6, place % 6)
      let inside = (1...4).contains(row) && (1...4).contains(column)
      let factor: Float =
        inside
        ? 1.75
        : [0, 5].contains(row) && [0, 5].contains(column)
          ? 1.75 * 4 / 9 : 1.75 * 6 / 9
      #expect(abs(with[place] - factor * without[place]) <= 1e-5 * abs(with[place]) + 1e-6)
    }
  }

  /// A ±1 input and ±α weights lose nothing.
  @Test func binaryOperandsAreExact() throws {
    let input = try pattern([1, 10, 5, 5], key: 9).binarySign()
    let weight = try pattern([4, 10, 3, 3], key: 10).binarySign().multiplied(by: 0.25)
    let wanted = try input.conv2d(weight)
    for scaled in [false, true] {
      let found = try input.binaryConv2d(weight, inputScale: scaled)
      for (a, b) in zip(try found.values(), try wanted.values()) { #expect(abs(a - b) < 1e-5) }
    }
  }

  @Test func threadsChangeNothing() throws {
    let before = Threads.count
    defer { Threads.count = before }
    let input = try pattern([2, 70, 33, 31], key: 11)
    let weight = try pattern([40, 70, 3, 3], key: 12)
    let found = try [1, 2].map { count in
      Threads.count = count
      return try input.binaryConv2d(weight, ConvolutionOptions(padding: Padding(1))).values()
    }
    #expect(found[0] == found[1])
  }

  @Test func mistakesAreExplained() throws {
    let input = try pattern([1, 6, 4, 4], key: 1)
    let weight = try pattern([4, 3, 3, 3], key: 2)
    #expect(throws: KDSError.self) { try input.binaryConv2d(weight) }
    #expect(throws: KDSError.self) {
      try input.binaryConv2d(weight, ConvolutionOptions(groups: 2))
    }
    #expect(throws: KDSError.self) { try input.binaryConv2d(pattern([4, 6, 5, 5], key: 2)) }
    #expect(throws: KDSError.self) { try PackedBinaryFilters(tensor([1], [1])) }
    #expect(throws: KDSError.self) {
      try input.binaryConv2d(pattern([4, 6, 1, 1], key: 2), bias: tensor([1], [1]))
    }
  }
}
