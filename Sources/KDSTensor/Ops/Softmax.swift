import KDSKernels

extension Tensor {
  /// e^x / sum e^x along an axis.
  public func softmax(axis: Int = -1) throws -> Tensor {
    try alongAxis("softmax", axis) { source, rows, columns in
      let result = try source.uninitializedLike()
      Kernels.softmax(source.floats, result.floats, rows: rows, columns: columns)
      let output = result.detachedView()
      return Tape.record(result, "softmax", [source]) { gradient in
        let toSource = try gradient.uninitializedLike()
        Kernels.softmaxBackward(
          output: output.floats, gradOutput: gradient.floats, gradInput: toSource.floats,
          rows: rows, columns: columns)
        return [toSource]
      }
    }
  }

  /// x - log sum e^x along an axis.
  public func logSoftmax(axis: Int = -1) throws -> Tensor {
    try alongAxis("log_softmax", axis) { source, rows, columns in
      let result = try source.uninitializedLike()
      Kernels.logSoftmax(source.floats, result.floats, rows: rows, columns: columns)
      let output = result.detachedView()
      return Tape.record(result, "log_softmax", [source]) { gradient in
        let toSource = try gradient.uninitializedLike()
        Kernels.logSoftmaxBackward(
          output: output.floats, gradOutput: gradient.floats, gradInput: toSource.floats,
          rows: rows, columns: columns)
        return [toSource]
      }
    }
  }

  /// Runs `body` on (rows, columns) with the axis last, and puts the result back in order.
  private func alongAxis(
    _ name: String, _ axis: Int, _ body: (Tensor, Int, Int) throws -> Tensor
  ) throws -> Tensor {
    try requireFloats(name, [self])
    let axis = try normalizedAxis(name, axis, shape)
    let columns = shape[axis]
    let rows = columns > 0 ? count / columns : 0
    if axis == rank - 1 { return try body(plain(), rows, columns) }
    let order = shape.indices.filter { $0 != axis } + [axis]
    let back = Array(0..<axis) + [rank - 1] + Array(axis..<(rank - 1))
    return try body(permuted(order), rows, columns).permuted(back)
  }
}
