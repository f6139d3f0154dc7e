import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// bfloat16 maps: conversions are exact where they can be, operations agree with float32 on values that
/// bfloat16 holds, to the 2^-8 of one rounding of the result.
@Suite(.enabled(if: Precision.hasHalf)) struct HalfTests {
  /// A pattern whose values are bfloat16 numbers.
  private func map(_ shape: [Int], key: UInt64) throws -> Tensor {
    let values = try pattern([1, shape.reduce(1, *), 1, 1], key: key, scale: 2)
    return try Tensor(values.inLayout(.half).values(), shape: shape)
  }

  private func close(_ a: Tensor, _ b: Tensor, _ tolerance: Float) throws -> Bool {
    let (x, y) = (try a.values(), try b.values())
    let scale = y.map(abs).max() ?? 0
    return a.shape == b.shape && zip(x, y).allSatisfy { abs($0 - $1) <= tolerance * scale }
  }

  /// Output and gradients of `body` in float32 and bfloat16.
  private func compare(
    _ name: String, _ leaves: [Tensor], tolerance: Float = 1.0 / 128,
    _ body: ([Tensor]) throws -> Tensor
  ) throws {
    func run(half: Bool) throws -> [Tensor] {
      let inputs = try leaves.map { try $0.copied() }
      for input in inputs { input.requiresGrad = true }
      let output = try Precision.withHalf(half) { try body(inputs) }
      #expect((output.layout == .half) == half, "\(name)")
      let weights = try map(output.shape, key: 99)
      try Tape.backward(from: output.multiplied(by: weights).summed())
      return try [output.detached().plain()] + inputs.map { try #require($0.gradient) }
    }
    for (index, pair) in zip(try run(half: true), try run(half: false)).enumerated() {
      #expect(try close(pair.0, pair.1, tolerance), "\(name), tensor \(index)")
      #expect(pair.0.layout != .half, "\(name): leaves and their gradients stay float32")
    }
  }

  @Test(arguments: [[2, 16, 5, 7], [1, 35, 3, 9], [3, 8, 1, 1], [2, 64, 13, 11]])
  func conversionsAreExact(shape: [Int]) throws {
    let values = try map(shape, key: 1)
    for layout in [Layout.plain, .preferred] {
      let back = try values.inLayout(layout).inLayout(.half).inLayout(layout)
      #expect(try back.values() == values.values())
      #expect(back.layout == layout)
    }
  }

  @Test func roundingIsToNearestEven() throws {
    // 1 + 2^-8 lies between 1 and 1 + 2^-7 and goes to the even 1; 1 + 3·2^-8 goes to 1 + 2^-6.
    let source: [Float] = [0x1.01p0, 0x1.03p0, 0x1.018p0, -0x1.01p0, .infinity, 0, .nan]
    let wanted: [Float] = [1, 0x1.04p0, 0x1.02p0, -1, .infinity, 0]
    let found = try tensor(source, [1, 7, 1, 1]).inLayout(.half).values()
    #expect(Array(found[..<6]) == wanted)
    #expect(found[6].isNaN)
  }

  @Test(arguments: [(16, 24, 3, 1), (32, 16, 1, 1), (16, 20, 3, 2)])
  func convolution(inputs: Int, outputs: Int, kernel: Int, stride: Int) throws {
    let leaves = [
      try map([2, inputs, 9, 13], key: 2), try map([outputs, inputs, kernel, kernel], key: 3),
      try map([outputs], key: 4),
    ]
    for activation in [Activation.none, .relu] {
      var options = ConvolutionOptions(stride: Size2(stride), padding: Padding(kernel / 2))
      options.activation = activation
      // Where a rounded output crosses 0 a ReLU passes another gradient: a share of one element.
      try compare("conv2d", leaves, tolerance: activation == .relu ? 0.03 : 1.0 / 128) {
        try $0[0].conv2d($0[1], bias: $0[2], options)
      }
    }
  }

  /// Row counts below, at and above a steady one; values stay plain float32 outside.
  @Test(arguments: [(16, true), (37, true), (40, false), (129, true)])
  func linearLayers(rows: Int, relu: Bool) throws {
    func run(half: Bool) throws -> [Tensor] {
      let leaves = try [
        map([1, 1, rows, 72], key: 3).reshaped([rows, 72]).copied(),
        map([1, 1, 136, 72], key: 4).reshaped([136, 72]).copied(),
        map([1, 1, 1, 136], key: 5).reshaped([136]).copied(),
      ]
      for leaf in leaves { leaf.requiresGrad = true }
      let output = try Precision.withHalf(half) {
        try leaves[0].linear(leaves[1], bias: leaves[2], activation: relu ? .relu : .none)
      }
      #expect(output.layout == .plain)
      let weights = try map([1, 1, rows, 136], key: 99).reshaped([rows, 136])
      try Tape.backward(from: output.multiplied(by: weights).summed())
      return try [output.detached()] + leaves.map { try #require($0.gradient) }
    }
    for (index, pair) in zip(try run(half: true), try run(half: false)).enumerated() {
      #expect(try close(pair.0, pair.1, 1.0 / 128), "tensor \(index)")
      #expect(try pair.0.values() != pair.1.values() || index > 0, "computed in float32")
    }
  }

  @Test func whatStandsBetweenConvolutions() throws {
    let (a, b) = (try map([2, 24, 6, 5], key: 5), try map([2, 24, 6, 5], key: 6))
    let (scale, shift) = (try map([24], key: 7), try map([24], key: 8))
    func halved(_ x: Tensor) throws -> Tensor { Precision.isHalf ? try x.inLayout(.half) : x }
    try compare("add", [a, b]) { try halved($0[0]).adding(halved($0[1])) }
    try compare("add_relu", [a, b], tolerance: 0.03) { try halved($0[0]).addingReLU($0[1]) }
    try compare("relu", [a]) { try halved($0[0]).relu() }
    try compare("nearest", [a]) { try halved($0[0]).resizedNearest(Size2(12, 11)) }
    try compare("affine", [a, scale, shift]) {
      try halved($0[0]).channelAffine(scale: $0[1], shift: $0[2])
    }
    try compare("max pool", [a]) {
      try halved($0[0]).pool2d(
        PoolingOptions(kernel: Size2(3), stride: Size2(2), padding: Padding(1)))
    }
    // The mean of products of rounded numbers: a few roundings more.
    try compare("batch norm", [a, scale, shift], tolerance: 0.02) {
      try halved($0[0]).batchNormTraining(scale: $0[1], shift: $0[2], epsilon: 1e-5).output
    }
  }

  /// Operations without a bfloat16 form convert what they read and agree with float32 bit for bit.
  @Test func othersConvert() throws {
    let values = try map([1, 18, 4, 6], key: 9)
    let half = try values.inLayout(.half)
    let forms: [(String, (Tensor) throws -> Tensor)] = [
      ("sigmoid", { try $0.sigmoid() }), ("sub", { try $0.subtracting(values) }),
      ("mean", { try $0.mean(axes: [2]) }), ("channels last", { try $0.channelsLast() }),
      ("bilinear", { try $0.resizedBilinear(Size2(7, 5)) }),
      ("slice", { try $0.sliced(axis: 2, from: 1) }),
      ("crop", { try $0.cropped(Size2(2, 3)) }), ("reshape", { try $0.reshaped([-1]) }),
      ("adaptive", { try $0.adaptiveAveragePool2d(Size2(2)) }),
      ("error", { try $0.squaredError(values.adding(1)) }),
      ("cat", { try Tensor.concatenated([$0, values], axis: 0) }),
      ("permute", { try $0.permuted([0, 2, 3, 1]) }), ("softmax", { try $0.softmax(axis: 1) }),
      ("pad", { try $0.padded([(0, 0), (0, 0), (1, 1), (0, 2)]) }),
    ]
    for (name, form) in forms {
      #expect(try form(half).values() == form(values.inLayout(.preferred)).values(), "\(name)")
    }
  }

  @Test func unknownNamesAreRefused() throws {
    #expect(throws: KDSError.self) { try Precision.isHalf("fp16", "precision") }
    #expect(try Precision.isHalf("bf16", "precision") && !Precision.isHalf("fp32", "precision"))
  }
}
