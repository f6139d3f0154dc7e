private struct ReduceOptions: Codable {
  var axes: [Int]?
  var keepDims = false
  enum CodingKeys: String, CodingKey { case axes, keepDims = "keep_dims" }
}

private struct VarianceOptions: Codable {
  var axes: [Int]?
  var unbiased = true
  var keepDims = false
  enum CodingKeys: String, CodingKey { case axes, unbiased, keepDims = "keep_dims" }
}

private struct ArgOptions: Codable {
  var axis = -1
  var keepDims = false
  enum CodingKeys: String, CodingKey { case axis, keepDims = "keep_dims" }
}

private struct ShapeOptions: Codable {
  var shape: [Int] = []
}

private struct OrderOptions: Codable {
  var order: [Int] = []
}

private struct TransposeOptions: Codable {
  var first = -2
  var second = -1
}

private struct SqueezeOptions: Codable {
  var axis: Int?
}

private struct FlattenOptions: Codable {
  var start = 0
  var end = -1
}

extension OpRegistry {
  static let reductions: [OpEntry] = [
    OpEntry("sum", 1...1, ReduceOptions(), "sum over axes (null: all)") {
      try $0[0].summed(axes: $1.axes, keepDims: $1.keepDims)
    },
    OpEntry("mean", 1...1, ReduceOptions(), "mean over axes (null: all)") {
      try $0[0].mean(axes: $1.axes, keepDims: $1.keepDims)
    },
    OpEntry("var", 1...1, VarianceOptions(), "variance over axes; unbiased divides by n - 1") {
      try $0[0].variance(axes: $1.axes, unbiased: $1.unbiased, keepDims: $1.keepDims)
    },
    OpEntry("max", 1...1, ReduceOptions(), "largest over axes; gradient to the first of equal ones") {
      try $0[0].maximum(axes: $1.axes, keepDims: $1.keepDims)
    },
    OpEntry("min", 1...1, ReduceOptions(), "smallest over axes; gradient to the first of equal ones") {
      try $0[0].minimum(axes: $1.axes, keepDims: $1.keepDims)
    },
    OpEntry("argmax", 1...1, ArgOptions(), "int64 index of the first largest along an axis") {
      try $0[0].argmax(axis: $1.axis, keepDims: $1.keepDims)
    },
    OpEntry("argmin", 1...1, ArgOptions(), "int64 index of the first smallest along an axis") {
      try $0[0].argmin(axis: $1.axis, keepDims: $1.keepDims)
    },
  ]

  static let shapes: [OpEntry] = [
    OpEntry("reshape", 1...1, ShapeOptions(), "another shape; -1 infers one size") {
      try requireSize("reshape", $1.shape.map { $0 == -1 ? 1 : $0 })
      return try $0[0].reshaped($1.shape)
    },
    OpEntry("expand", 1...1, ShapeOptions(), "repeated to a shape by broadcasting") {
      try $0[0].expanded(to: $1.shape)
    },
    OpEntry("permute", 1...1, OrderOptions(), "axes in a new order") {
      try $0[0].permuted($1.order)
    },
    OpEntry("transpose", 1...1, TransposeOptions(), "two axes exchanged") {
      try $0[0].transposed($1.first, $1.second)
    },
    OpEntry("squeeze", 1...1, SqueezeOptions(), "without axes of size 1 (null: all of them)") {
      try $0[0].squeezed(axis: $1.axis)
    },
    OpEntry("unsqueeze", 1...1, AxisOptions(axis: 0), "with a new axis of size 1") {
      try $0[0].unsqueezed(axis: $1.axis)
    },
    OpEntry("flatten", 1...1, FlattenOptions(), "axes start to end merged into one") {
      try $0[0].flattened(from: $1.start, to: $1.end)
    },
    OpEntry("plain", 1...1, "the same values in plain layout") { try $0[0].plain() },
    OpEntry("blocked", 1...1, "(N, C, H, W) in the layout of this processor's kernels") {
      try $0[0].inLayout(.preferred)
    },
  ]
}
