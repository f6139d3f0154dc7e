struct Conv2dOptions: Codable {
  var stride = [1, 1]
  /// top, left, bottom, right
  var padding = [0, 0, 0, 0]
  var dilation = [1, 1]
  var groups = 1
  var activation = "none"

  func options(_ name: String) throws -> ConvolutionOptions {
    // Larger numbers could overflow the arithmetic of sizes, and mean nothing.
    guard (stride + padding + dilation + [groups]).allSatisfy({ $0 <= 1 << 14 }), groups > 0 else {
      throw KDSError.argument(
        "\(name): stride \(stride), padding \(padding), dilation \(dilation) and groups \(groups) "
          + "must be at most 16384, and groups positive")
    }
    return ConvolutionOptions(
      stride: try size(name, "stride", stride), padding: try sides(name, padding),
      dilation: try size(name, "dilation", dilation), groups: groups,
      activation: try activationNamed(name, activation))
  }
}

private struct DeformConv2dOptions: Codable {
  var stride = [1, 1]
  /// top, left, bottom, right
  var padding = [0, 0, 0, 0]
  var dilation = [1, 1]
  var groups = 1

  func options(_ name: String) throws -> ConvolutionOptions {
    var plain = Conv2dOptions()
    (plain.stride, plain.padding) = (stride, padding)
    (plain.dilation, plain.groups) = (dilation, groups)
    return try plain.options(name)
  }
}

private struct PoolOptions: Codable {
  var kernel = [2, 2]
  var stride: [Int]?
  var padding = [0, 0, 0, 0]
  var ceilMode = false
  var countIncludePad = true
  enum CodingKeys: String, CodingKey {
    case kernel, stride, padding
    case ceilMode = "ceil_mode"
    case countIncludePad = "count_include_pad"
  }

  func options(_ name: String, max: Bool) throws -> PoolingOptions {
    PoolingOptions(
      kind: max ? .max : (countIncludePad ? .average : .averageOfValid),
      kernel: try size(name, "kernel", kernel),
      stride: try stride.map { try size(name, "stride", $0) },
      padding: try sides(name, padding), roundUp: ceilMode)
  }
}

private struct LinearOptions: Codable {
  var activation = "none"
}

private struct DropoutOptions: Codable {
  var probability: Float = 0.5
  var seed = 0
  var stream = 0
  enum CodingKeys: String, CodingKey { case probability = "p", seed, stream }
}

private struct GroupNormOptions: Codable {
  var groups = 1
  var eps: Float = 1e-5
}

private struct SizeOptions: Codable {
  var size = [1, 1]
}

/// Two positive-or-zero numbers, or one for both.
func size(_ name: String, _ what: String, _ values: [Int]) throws -> Size2 {
  guard values.count == 1 || values.count == 2,
    values.allSatisfy({ (0...maximumSize).contains($0) })
  else {
    throw KDSError.argument("\(name): \(what) must be [height, width], got \(values)")
  }
  return Size2(values[0], values[values.count - 1])
}

/// Larger sides than this could overflow the arithmetic of sizes.
private let maximumSize = 1 << 20

private func sides(_ name: String, _ values: [Int]) throws -> Padding {
  guard values.allSatisfy({ (0...maximumSize).contains($0) }) else {
    throw KDSError.argument("\(name): padding must not be negative, got \(values)")
  }
  switch values.count {
  case 1: return Padding(values[0])
  case 2: return Padding(top: values[0], left: values[1], bottom: values[0], right: values[1])
  case 4: return Padding(top: values[0], left: values[1], bottom: values[2], right: values[3])
  default:
    throw KDSError.argument("\(name): padding must be [top, left, bottom, right], got \(values)")
  }
}

private func activationNamed(_ name: String, _ activation: String) throws -> Activation {
  switch activation {
  case "none": return .none
  case "relu": return .relu
  default: throw KDSError.argument("\(name): activation must be none or relu, not \(activation)")
  }
}

extension OpRegistry {
  static let layers: [OpEntry] = [
    OpEntry("conv2d", 2...3, Conv2dOptions(), "2-D convolution: input, weight, bias") {
      try requireFloats("conv2d", $0)
      return try $0[0].conv2d(
        $0[1].plain(), bias: $0.optional(2), try $1.options("conv2d"))
    },
    OpEntry("conv_transpose2d", 2...3, Conv2dOptions(), "transposed 2-D convolution") {
      let name = "conv_transpose2d"
      try requireFloats(name, $0)
      let options = try $1.options(name)
      if $0[0].rank == 4, $0[1].rank == 4 {
        let (map, kernel, stride) = ($0[0].shape, $0[1].shape, options.stride)
        try requireSize(
          name,
          [
            map[0], kernel[1] * options.groups,
            map[2] * stride.height + kernel[2] * options.dilation.height,
            map[3] * stride.width + kernel[3] * options.dilation.width,
          ])
      }
      return try $0[0].convTranspose2d($0[1].plain(), bias: $0.optional(2), options)
    },
    OpEntry(
      "deform_conv2d", 3...5, DeformConv2dOptions(),
      "deformable convolution: input, offset, weight, then bias (1-D), mask (4-D) or both"
    ) {
      try requireFloats("deform_conv2d", $0)
      let maskAlone = $0.count == 4 && $0[3].rank == 4
      return try $0[0].deformConv2d(
        $0[2].plain(), offset: $0[1], mask: maskAlone ? $0[3] : $0.optional(4),
        bias: maskAlone ? nil : $0.optional(3), try $1.options("deform_conv2d"))
    },
    OpEntry("max_pool2d", 1...1, PoolOptions(), "max pooling; stride null means kernel") {
      try $0[0].pool2d($1.options("max_pool2d", max: true))
    },
    OpEntry("avg_pool2d", 1...1, PoolOptions(), "average pooling; stride null means kernel") {
      try $0[0].pool2d($1.options("avg_pool2d", max: false))
    },
    OpEntry("linear", 2...3, LinearOptions(), "x weight^T + bias: input (..., in), weight, bias") {
      try requireFloats("linear", $0)
      let rows = try $0[0].plain()
      let weight = try $0[1].plain()
      let activation = try activationNamed("linear", $1.activation)
      if rows.rank == 2 {
        return try rows.linear(weight, bias: $0.optional(2), activation: activation)
      }
      guard let last = rows.shape.last, weight.rank == 2, last > 0 else {
        throw KDSError.shape(
          "linear: input \(rows.shape) must be (..., in) and weight \(weight.shape) (out, in)")
      }
      let flat = try rows.reshaped([rows.count / last, last])
      return try flat.linear(weight, bias: $0.optional(2), activation: activation)
        .reshaped(Array(rows.shape.dropLast()) + [weight.shape[0]])
    },
    OpEntry("matmul", 2...2, "matrix product; leading axes broadcast") { try $0[0].matmul($0[1]) },
    OpEntry("dot", 2...2, "sum of products of two 1-D tensors") { try $0[0].dot($0[1]) },
    OpEntry("softmax", 1...1, AxisOptions(), "e^x / sum e^x along an axis") {
      try $0[0].softmax(axis: $1.axis)
    },
    OpEntry("log_softmax", 1...1, AxisOptions(), "x - log sum e^x along an axis") {
      try $0[0].logSoftmax(axis: $1.axis)
    },
    OpEntry(
      "dropout", 1...1, DropoutOptions(), "elements 0 with probability p, the others / (1 - p)"
    ) {
      try $0[0].dropout(
        probability: $1.probability, seed: UInt64(bitPattern: Int64($1.seed)),
        stream: UInt64(bitPattern: Int64($1.stream)))
    },
  ]

  static let normalizations: [OpEntry] = [
    OpEntry(
      "group_norm", 1...3, GroupNormOptions(),
      "mean 0 and variance 1 per image and group of channels: input, weight, bias"
    ) {
      try $0[0].groupNorm(
        groups: $1.groups, weight: $0.optional(1), bias: $0.optional(2), epsilon: $1.eps)
    },
    OpEntry("adaptive_avg_pool2d", 1...1, SizeOptions(), "means over size cells") {
      try $0[0].adaptiveAveragePool2d(size("adaptive_avg_pool2d", "size", $1.size))
    },
  ]
}
