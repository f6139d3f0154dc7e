import KDSKernels
import KDSTestSupport
import Testing

/// The naive versions against PyTorch: an oracle needs a check of its own.
@Suite struct ReferenceFixtures {
  let fixture: Fixture

  init() throws { fixture = try Fixture("kernels") }

  func expect(_ values: [Float], _ key: String) throws {
    #expect(error(values, try fixture.floats(key)) < golden, "\(key)")
  }

  @Test func convolution() throws {
    var shape = ConvolutionShape(
      images: 2, inputs: 4, height: 9, width: 8, outputs: 6, kernel: 3, stride: 2, groups: 2)
    (shape.paddingHeight, shape.paddingWidth) = (2, 1)
    (shape.dilationHeight, shape.dilationWidth) = (2, 1)
    let (x, w) = (try fixture.floats("conv2d/input"), try fixture.floats("conv2d/weight"))
    let g = try fixture.floats("conv2d/upstream")
    try expect(
      Reference.conv2d(x, w, bias: try fixture.floats("conv2d/bias"), shape), "conv2d/output")
    try expect(Reference.conv2dBackwardData(gradOutput: g, w, shape), "conv2d/grad_input")
    let back = Reference.conv2dBackwardWeights(x, gradOutput: g, shape)
    try expect(back.weight, "conv2d/grad_weight")
    try expect(back.bias, "conv2d/grad_bias")
  }

  @Test func transposedConvolution() throws {
    let name = "conv_transpose2d"
    let out = try fixture.shape("\(name)/output")
    // The convolution that maps the output's shape back to the input's.
    let shape = ConvolutionShape(
      images: 2, inputs: 6, height: out[2], width: out[3], outputs: 4, kernel: 3, stride: 2,
      padding: 1, groups: 2)
    let (x, w) = (try fixture.floats("\(name)/input"), try fixture.floats("\(name)/weight"))
    let g = try fixture.floats("\(name)/upstream")
    #expect(shape.outHeight == 4 && shape.outWidth == 5)
    try expect(
      Reference.convTranspose2d(x, w, bias: try fixture.floats("\(name)/bias"), shape),
      "\(name)/output")
    try expect(Reference.conv2d(g, w, shape), "\(name)/grad_input")
    try expect(
      Reference.conv2dBackwardWeights(g, gradOutput: x, shape).weight, "\(name)/grad_weight")
  }

  @Test(arguments: [false, true]) func pooling(_ ceil: Bool) throws {
    let shape = PoolingShape(
      planes: 3, height: 8, width: 10, kernel: 3, stride: 2, padding: 1, ceilMode: ceil)
    let name = "max_pool_\(ceil ? 1 : 0)"
    let (y, argmax) = Reference.maxPool2d(try fixture.floats("\(name)/input"), shape)
    try expect(y, "\(name)/output")
    let g = try fixture.floats("\(name)/upstream")
    try expect(
      Reference.maxPool2dBackward(gradOutput: g, argmax: argmax, shape), "\(name)/grad_input")
    for padded in [false, true] {
      let name = "avg_pool_\(ceil ? 1 : 0)\(padded ? 1 : 0)"
      let x = try fixture.floats("\(name)/input")
      try expect(Reference.avgPool2d(x, shape, includePadding: padded), "\(name)/output")
      let g = try fixture.floats("\(name)/upstream")
      try expect(
        Reference.avgPool2dBackward(gradOutput: g, shape, includePadding: padded),
        "\(name)/grad_input")
    }
  }

  @Test func batchNormAndLinear() throws {
    let x = try fixture.floats("batch_norm/input")
    let weight = try fixture.floats("batch_norm/weight")
    let normal = Reference.batchNorm(
      x, images: 3, channels: 4, area: 6, weight: weight,
      bias: try fixture.floats("batch_norm/bias"), eps: 1e-5)
    try expect(normal.output, "batch_norm/output")
    let back = Reference.batchNormBackward(
      x, gradOutput: try fixture.floats("batch_norm/upstream"), images: 3, channels: 4, area: 6,
      weight: weight, eps: 1e-5)
    try expect(back.input, "batch_norm/grad_input")
    try expect(back.weight, "batch_norm/grad_weight")
    try expect(back.bias, "batch_norm/grad_bias")

    let (a, w) = (try fixture.floats("linear/input"), try fixture.floats("linear/weight"))
    try expect(
      Reference.linear(
        a, w, bias: try fixture.floats("linear/bias"), rows: 5, inputs: 7, outputs: 3),
      "linear/output")
    let slopes = Reference.linearBackward(
      a, w, gradOutput: try fixture.floats("linear/upstream"), rows: 5, inputs: 7, outputs: 3)
    try expect(slopes.input, "linear/grad_input")
    try expect(slopes.weight, "linear/grad_weight")
    try expect(slopes.bias, "linear/grad_bias")
  }

  @Test func softmax() throws {
    let x = try fixture.floats("softmax/input")
    try expect(Reference.softmax(x, rows: 7, columns: 21), "softmax/output")
    try expect(
      Reference.logSoftmax(try fixture.floats("log_softmax/input"), rows: 7, columns: 21),
      "log_softmax/output")
  }
}
