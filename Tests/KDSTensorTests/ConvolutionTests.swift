import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// One convolution with symmetric padding, which the reference knows.
private struct Convolution {
  var images = 2, inputs = 16, height = 9, width = 7, outputs = 16
  var kernel = Size2(3, 3), stride = Size2(1), padding = Size2(1), dilation = Size2(1)
  var groups = 1

  var options: ConvolutionOptions {
    ConvolutionOptions(
      stride: stride,
      padding: Padding(
        top: padding.height, left: padding.width, bottom: padding.height, right: padding.width),
      dilation: dilation, groups: groups)
  }

  var shape: ConvolutionShape {
    var shape = ConvolutionShape(
      images: images, inputs: inputs, height: height, width: width, outputs: outputs,
      kernelHeight: kernel.height, kernelWidth: kernel.width)
    (shape.strideHeight, shape.strideWidth) = (stride.height, stride.width)
    (shape.paddingHeight, shape.paddingWidth) = (padding.height, padding.width)
    (shape.dilationHeight, shape.dilationWidth) = (dilation.height, dilation.width)
    shape.groups = groups
    return shape
  }

  func testCase(relu: Bool = false) -> OpCase {
    let (shape, options) = (shape, options)
    var fused = options
    fused.activation = relu ? .relu : .none
    return OpCase(
      "conv2d\(kernel) stride \(stride) dilation \(dilation) groups \(groups) relu \(relu)",
      [
        [images, inputs, height, width],
        [outputs, inputs / groups, kernel.height, kernel.width], [outputs],
      ],
      range: -1...1,
      reference: {
        let sums = Reference.conv2d($0[0], $0[1], bias: $0[2], shape)
        return relu ? sums.map { max($0, 0) } : sums
      },
      // A few hundred products of order 0.3, added in another order.
      tolerance: 2e-5,
      // The convolution is linear in each input: only rounding, 1e-5 of sums of order 10, counts.
      // With ReLU a step may cross the kink of some outputs.
      gradientTolerance: relu ? 2e-2 : 3e-3, blocked: [0]
    ) { try $0[0].conv2d($0[1], bias: $0[2], fused) }
  }
}

private let convolutions: [Convolution] = [
  Convolution(), Convolution(inputs: 3, outputs: 19), Convolution(inputs: 19, outputs: 5),
  Convolution(kernel: Size2(1), padding: Size2(0)),
  Convolution(stride: Size2(2)), Convolution(stride: Size2(2, 1), padding: Size2(0, 1)),
  Convolution(padding: Size2(2), dilation: Size2(2)),
  Convolution(kernel: Size2(5, 3), padding: Size2(2, 1)),
  Convolution(
    inputs: 3, height: 15, width: 13, outputs: 8, kernel: Size2(7), stride: Size2(2),
    padding: Size2(3)),
  Convolution(inputs: 32, outputs: 32, groups: 2), Convolution(inputs: 6, outputs: 9, groups: 3),
  Convolution(inputs: 16, outputs: 16, groups: 16),
  Convolution(inputs: 19, outputs: 19, groups: 19),
  Convolution(images: 1, inputs: 1, height: 1, width: 1, outputs: 1),
  // Large enough for the Winograd rule.
  Convolution(images: 4, inputs: 16, height: 17, width: 16, outputs: 32),
  // The same with filters counted up to whole blocks.
  Convolution(images: 4, inputs: 16, height: 17, width: 16, outputs: 27),
]

@Suite struct ConvolutionTests {
  @Test(arguments: convolutions.map { $0.testCase() }) func conv2d(_ testCase: OpCase) throws {
    try check(testCase)
  }

  @Test func fusedReLU() throws { try check(Convolution().testCase(relu: true)) }

  @Test func asymmetricPaddingEqualsPaddingFirst() throws {
    let sides = Padding(top: 2, left: 0, bottom: 1, right: 3)
    try check(
      OpCase(
        "conv2d with asymmetric padding", [[2, 16, 6, 7], [8, 16, 3, 3]], range: -1...1,
        gradientTolerance: 3e-3, blocked: [0]
      ) {
        let own = try $0[0].conv2d($0[1], ConvolutionOptions(padding: sides))
        let wide = try $0[0].padded([(0, 0), (0, 0), (2, 1), (0, 3)]).conv2d($0[1])
        let gap = try own.subtracting(wide).abs().maximum().item
        // The same products, perhaps in another order.
        #expect(gap < 1e-5)
        return own
      })
  }

  @Test func transposedConvolution() throws {
    for (stride, groups) in [(1, 1), (2, 1), (2, 4)] {
      let shape = ConvolutionShape(
        images: 2, inputs: 12, height: 7, width: 5, outputs: 8, kernel: 3, stride: stride,
        padding: 1, groups: groups)
      let (height, width) = (shape.outHeight, shape.outWidth)
      let left = Size2(
        7 - ((height - 1) * stride - 2 + 3), 5 - ((width - 1) * stride - 2 + 3))
      let options = ConvolutionOptions(
        stride: Size2(stride), padding: Padding(1), groups: groups)
      try check(
        OpCase(
          "conv_transpose2d stride \(stride) groups \(groups)",
          [[2, 8, height, width], [8, 12 / groups, 3, 3], [12]], range: -1...1,
          reference: { Reference.convTranspose2d($0[0], $0[1], bias: $0[2], shape) },
          tolerance: 2e-5, gradientTolerance: 3e-3, blocked: [0]
        ) { try $0[0].convTranspose2d($0[1], bias: $0[2], outputPadding: left, options) })
    }
  }

  @Test func pooling() throws {
    let map = [2, 19, 7, 6]
    for (kernel, stride, padding, up) in [
      (2, 2, 0, false), (3, 2, 1, false), (3, 2, 0, true), (3, 1, 1, false), (2, 2, 0, true),
    ] {
      let shape = PoolingShape(
        planes: 38, height: 7, width: 6, kernel: kernel, stride: stride, padding: padding,
        ceilMode: up)
      func options(_ kind: PoolingOptions.Kind) -> PoolingOptions {
        PoolingOptions(
          kind: kind, kernel: Size2(kernel), stride: Size2(stride), padding: Padding(padding),
          roundUp: up)
      }
      let name = "kernel \(kernel) stride \(stride) padding \(padding) up \(up)"
      try check(
        OpCase(
          "max \(name)", [map], reference: { Reference.maxPool2d($0[0], shape).output },
          tolerance: 0,
          // A smaller step seldom changes which pixel is the largest.
          step: 1e-3, gradientTolerance: 5e-3
        ) { try $0[0].pool2d(options(.max)) })
      try check(
        OpCase(
          "mean of valid \(name)", [map],
          reference: { Reference.avgPool2d($0[0], shape, includePadding: false) }
        ) { try $0[0].pool2d(options(.averageOfValid)) })
      // With ceil mode the divisor of border windows differs between libraries; see the pooling page.
      if !up {
        try check(
          OpCase("mean \(name)", [map], reference: { Reference.avgPool2d($0[0], shape) }) {
            try $0[0].pool2d(options(.average))
          })
      }
    }
  }

  @Test func batchNormInTraining() throws {
    try check(
      OpCase(
        "batch_norm", [[3, 19, 4, 5], [19], [19]],
        reference: {
          Reference.batchNorm(
            $0[0], images: 3, channels: 19, area: 20, weight: $0[1], bias: $0[2], eps: 1e-5
          ).output
        },
        // Mean and variance of 60 values, taken in another order.
        tolerance: 2e-5, gradientTolerance: 3e-3
      ) { try $0[0].batchNormTraining(scale: $0[1], shift: $0[2], epsilon: 1e-5).output })
  }

  @Test func wrongShapesThrow() throws {
    let x = try Tensor.zeros([1, 4, 5, 5])
    let weight = try Tensor.zeros([8, 4, 3, 3])
    let calls: [() throws -> Any] = [
      { try x.conv2d(Tensor.zeros([8, 3, 3, 3])) }, { try x.conv2d(Tensor.zeros([8, 4])) },
      { try x.conv2d(weight, bias: Tensor.zeros([4])) },
      { try x.conv2d(weight, ConvolutionOptions(stride: Size2(0))) },
      { try x.conv2d(weight, ConvolutionOptions(padding: Padding(-1))) },
      { try x.conv2d(weight, ConvolutionOptions(groups: 3)) },
      { try x.conv2d(Tensor.zeros([8, 4, 7, 7])) },
      { try x.pool2d(PoolingOptions(kernel: Size2(6))) },
      { try x.pool2d(PoolingOptions(kernel: Size2(2), padding: Padding(2))) },
      { try x.convTranspose2d(Tensor.zeros([8, 4, 3, 3])) },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
  }
}
