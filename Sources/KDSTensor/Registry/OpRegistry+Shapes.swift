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

private struct SliceOptions: Codable {
  var axis = 0
  var start = 0
  var stop: Int?
  var step = 1
}

private struct SelectOptions: Codable {
  var axis = 0
  var index = 0
}

private struct SplitOptions: Codable {
  var sizes: [Int] = []
  var axis = 0
}

private struct PadOptions: Codable {
  /// One [before, after] per axis.
  var pads: [[Int]] = []
  var value: Float = 0
}

extension OpRegistry {
  static let indexing: [OpEntry] = [
    OpEntry("slice", 1...1, SliceOptions(), "elements start to stop by step along an axis") {
      try $0[0].sliced(axis: $1.axis, from: $1.start, to: $1.stop, step: $1.step)
    },
    OpEntry("select", 1...1, SelectOptions(), "the part at one position of an axis") {
      try $0[0].selected(axis: $1.axis, index: $1.index)
    },
    OpEntry(
      "split", 1...1, SplitOptions(), "parts of the given sizes along an axis",
      all: {
        try $0[0].split($1.sizes, axis: $1.axis)
      }),
    OpEntry("index_select", 2...2, AxisOptions(axis: 0), "slices of an axis by 1-D int64 index") {
      try $0[0].indexSelected(axis: $1.axis, $0[1])
    },
    OpEntry("gather", 2...2, AxisOptions(), "elements along an axis by int64 index of one rank") {
      try $0[0].gathered(axis: $1.axis, $0[1])
    },
    OpEntry("masked_select", 2...2, "parts where a mask over the leading axes is not 0") {
      try $0[0].maskSelected($0[1])
    },
    OpEntry("nonzero", 1...1, "(count, rank) int64 positions of the elements that are not 0") {
      try $0[0].nonzero()
    },
    OpEntry(
      "pad", 1...1, PadOptions(), "value around the tensor; pads has [before, after] per axis"
    ) {
      inputs, options in
      guard options.pads.allSatisfy({ $0.count == 2 }) else {
        throw KDSError.argument("pad: pads must hold [before, after] per axis, got \(options.pads)")
      }
      return try inputs[0].padded(options.pads.map { ($0[0], $0[1]) }, value: options.value)
    },
    OpEntry("cat", 1...OpEntry.any, AxisOptions(axis: 0), "tensors joined along an axis") {
      try Tensor.concatenated($0, axis: $1.axis)
    },
    OpEntry("stack", 1...OpEntry.any, AxisOptions(axis: 0), "tensors joined along a new axis") {
      try Tensor.stacked($0, axis: $1.axis)
    },
  ]

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
    OpEntry("max", 1...1, ReduceOptions(), "largest over axes; gradient to the first of equal ones")
    {
      try $0[0].maximum(axes: $1.axes, keepDims: $1.keepDims)
    },
    OpEntry(
      "min", 1...1, ReduceOptions(), "smallest over axes; gradient to the first of equal ones"
    ) {
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
