import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// 2 groups of filters, 3 of offsets, an odd kernel, everything different both ways.
private let shape = {
  var shape = ConvolutionShape(
    images: 2, inputs: 12, height: 6, width: 5, outputs: 8, kernelHeight: 3, kernelWidth: 2)
  (shape.strideHeight, shape.paddingHeight, shape.paddingWidth) = (2, 1, 1)
  (shape.dilationWidth, shape.groups) = (2, 2)
  return shape
}()

private let options = ConvolutionOptions(
  stride: Size2(2, 1), padding: Padding(1), dilation: Size2(1, 2), groups: 2)

private let same = ConvolutionOptions(padding: Padding(1))

/// Bilinear reading has a kink at every whole pixel, and places of the kernel are whole.
private func nearWholePixel(_ input: Int, _ value: Float) -> Bool {
  input == 1 && abs(value - value.rounded()) < 0.02
}

private let cases = [
  OpCase(
    "deform_conv2d", [[2, 12, 6, 5], [2, 36, 3, 5], [8, 6, 3, 2], [8], [2, 18, 3, 5]],
    reference: {
      Reference.deformConv2d(
        $0[0], offset: $0[1], $0[2], bias: $0[3], mask: $0[4], offsetGroups: 3, shape)
    },
    // Sums of 36 products of values up to 8.
    tolerance: 3e-5, gradientTolerance: 2e-3, skip: nearWholePixel, blocked: [0]
  ) {
    try $0[0].deformConv2d($0[2], offset: $0[1], mask: $0[4], bias: $0[3], options)
  },
  OpCase(
    "deform_conv2d without mask", [[2, 19, 6, 5], [2, 18, 6, 5], [5, 19, 3, 3]],
    // 2600 rows and 4.5 MB of columns: more than one tile.
    large: [[2, 56, 36, 37], [2, 18, 36, 37], [33, 56, 3, 3]],
    reference: {
      Reference.deformConv2d(
        $0[0], offset: $0[1], $0[2],
        ConvolutionShape(
          images: 2, inputs: 19, height: 6, width: 5, outputs: 5, kernel: 3, padding: 1))
    },
    // Sums of 171 products of values up to 4.
    tolerance: 3e-5, gradientTolerance: 2e-3, skip: nearWholePixel, blocked: [0]
  ) { try $0[0].deformConv2d($0[2], offset: $0[1], same) },
]

@Suite struct DeformableTests {
  @Test(arguments: cases) func operation(_ testCase: OpCase) throws { try check(testCase) }

  /// The golden values are in double precision. Values: a few roundings of sums of up to 108 products.
  @Test(arguments: ["plain", "at_rest", "groups", "first_version"])
  func equalsTorchvision(name: String) throws {
    let golden = try Fixture("deformable")
    func read(_ word: String) throws -> Tensor {
      try tensor(golden.floats("\(name)/\(word)"), golden.shape("\(name)/\(word)"))
    }
    var leaves = ["input": try read("input"), "offset": try read("offset")]
    for word in ["weight", "bias"] { leaves[word] = try read(word) }
    if name != "first_version" { leaves["mask"] = try read("mask") }
    for leaf in leaves.values { leaf.requiresGrad = true }
    var settings = ConvolutionOptions(padding: Padding(1))
    if name == "groups" {
      settings = ConvolutionOptions(
        stride: Size2(2, 1), padding: Padding(top: 1, left: 0, bottom: 1, right: 0),
        dilation: Size2(1, 2), groups: 2)
    } else if name == "first_version" {
      settings = ConvolutionOptions(stride: Size2(2), padding: Padding(2), dilation: Size2(2))
    }
    let result = try leaves["input"]!.deformConv2d(
      leaves["weight"]!, offset: leaves["offset"]!, mask: leaves["mask"], bias: leaves["bias"],
      settings)
    try compare(result, read("output"), 1e-5, "output")
    try Tape.backward(from: result, seed: read("upstream"))
    for (word, leaf) in leaves {
      try compare(#require(leaf.gradient, "\(word)"), read("grad_\(word)"), 1e-4, word)
    }
  }

  private func compare(_ found: Tensor, _ wanted: Tensor, _ limit: Float, _ what: String) throws {
    #expect(found.shape == wanted.shape, "\(what)")
    let (values, expected) = (try found.values(), try wanted.values())
    let scale = max(1, expected.map(abs).max() ?? 0)
    let gap = zip(values, expected).map { abs($0 - $1) }.max() ?? .infinity
    #expect(gap <= limit * scale, "\(what): gap \(gap) at scale \(scale)")
  }

  @Test func withoutOffsetsItIsAConvolution() throws {
    let input = try pattern([2, 32, 9, 7], key: 1).inLayout(.preferred)
    let weight = try pattern([24, 32, 3, 3], key: 2)
    let result = try input.deformConv2d(weight, offset: Tensor.zeros([2, 18, 9, 7]), same)
    #expect(result.layout == .preferred)
    try compare(result, input.conv2d(weight, same).plain(), 1e-5, "convolution")
  }

  @Test func bfloat16IsWidened() throws {
    let half = try pattern([2, 32, 9, 7], key: 1).inLayout(.half)
    let weight = try pattern([24, 32, 3, 3], key: 2)
    let offset = try pattern([2, 18, 9, 7], key: 3)
    half.requiresGrad = true
    let result = try half.deformConv2d(weight, offset: offset, same)
    try compare(result, half.plain().deformConv2d(weight, offset: offset, same), 1e-5, "value")
    try Tape.backward(from: result, seed: pattern(result.shape, key: 4))
    #expect(try half.gradient!.values().contains { $0 != 0 })
  }

  @Test func wildOffsetsReadNothing() throws {
    let input = try pattern([1, 3, 4, 4], key: 1)
    let weight = try pattern([2, 3, 1, 1], key: 2)
    for value in [Float.nan, .infinity, -.infinity, 1e30, -1e30] {
      let offset = try Tensor(filled: value, shape: [1, 2, 4, 4])
      offset.requiresGrad = true
      let result = try input.deformConv2d(weight, offset: offset)
      #expect(try result.values().allSatisfy { $0 == 0 })
      try Tape.backward(from: result, seed: Tensor(filled: 1, shape: result.shape))
      #expect(try offset.gradient!.values().allSatisfy { $0 == 0 })
    }
  }

  @Test func wrongShapesAreNamed() throws {
    let input = try Tensor.zeros([2, 6, 5, 5])
    let weight = try Tensor.zeros([4, 6, 3, 3])
    let offset = try Tensor.zeros([2, 18, 5, 5])
    let calls: [(String, () throws -> Any)] = [
      (
        "offset [2, 17, 5, 5]",
        {
          try input.deformConv2d(weight, offset: Tensor.zeros([2, 17, 5, 5]), same)
        }
      ),
      ("offset [2, 18, 5, 5]", { try input.deformConv2d(weight, offset: offset) }),
      // Four groups of offsets do not divide six channels.
      (
        "offset [2, 72, 5, 5]",
        {
          try input.deformConv2d(weight, offset: Tensor.zeros([2, 72, 5, 5]), same)
        }
      ),
      (
        "mask [2, 9, 5, 4]",
        {
          try input.deformConv2d(
            weight, offset: offset, mask: Tensor.zeros([2, 9, 5, 4]), same)
        }
      ),
      (
        "weight [4, 5, 3, 3]",
        {
          try input.deformConv2d(Tensor.zeros([4, 5, 3, 3]), offset: offset, same)
        }
      ),
      (
        "bias [3]",
        {
          try input.deformConv2d(weight, offset: offset, bias: Tensor.zeros([3]), same)
        }
      ),
    ]
    for (part, call) in calls {
      let error = #expect(throws: KDSError.self) { _ = try call() }
      #expect("\(error!)".contains("deform_conv2d: ") && "\(error!)".contains(part), "\(error!)")
    }
  }

  @Test func byName() throws {
    let (input, weight) = (try pattern([1, 4, 5, 5], key: 1), try pattern([2, 4, 3, 3], key: 2))
    let (offset, mask) = (try pattern([1, 18, 5, 5], key: 3), try pattern([1, 9, 5, 5], key: 4))
    let bias = try pattern([2], key: 5)
    func call(_ extras: [Tensor]) throws -> [Float] {
      try OpRegistry.apply(
        "deform_conv2d", [input, offset, weight] + extras,
        attributes: #"{"padding": [1, 1, 1, 1]}"#)[0].values()
    }
    func direct(_ mask: Tensor?, _ bias: Tensor?) throws -> [Float] {
      try input.deformConv2d(weight, offset: offset, mask: mask, bias: bias, same).values()
    }
    #expect(try call([]) == direct(nil, nil))
    #expect(try call([mask]) == direct(mask, nil))
    #expect(try call([bias]) == direct(nil, bias))
    #expect(try call([bias, mask]) == direct(mask, bias))
  }
}
