import KDSKernels

extension Tensor {
  /// Elements `start, start + step, …` below `stop` along an axis; a copy, in the same layout unless
  /// channels of a blocked tensor are cut.
  ///
  /// As in Python, negative positions count from the end, and positions beyond the ends are clamped.
  /// - Throws: `KDSError.argument` for an axis outside the shape or a step below 1.
  public func sliced(
    axis: Int, from start: Int = 0, to stop: Int? = nil, step: Int = 1
  ) throws -> Tensor {
    let axis = try normalizedAxis("slice", axis, shape)
    guard step >= 1 else {
      throw KDSError.argument("slice: step must be at least 1, not \(step), on axis \(axis)")
    }
    let length = shape[axis]
    let first = clampedPosition(start, length)
    let last = clampedPosition(stop ?? length, length)
    let count = last > first ? (last - first - 1) / step + 1 : 0
    if first == 0 && count == length { return self }
    let source = try axis == 1 ? plain() : widened()
    var target = shape
    target[axis] = count
    let result = try Tensor(uninitialized: target, dtype: dtype, layout: source.layout)
    var strides = LoopNest.contiguous(source.memoryShape)
    let offset = count > 0 ? first * strides[axis] : 0
    strides[axis] = strides[axis] &* min(step, max(length, 1))
    let nest = LoopNest(sizes: result.memoryShape, strides: [strides])
    result.gather(from: source, nest, offset: offset)
    let (whole, layout) = (shape, source.layout)
    return Tape.record(result, "slice", [source]) { gradient in
      let toSource = try Tensor.zeros(whole, layout: layout)
      toSource.scatter(from: gradient, nest, offset: offset)
      return [toSource]
    }
  }

  /// The part at one position of an axis, without that axis; negative positions count from the end.
  ///
  /// - Throws: `KDSError.argument` for an axis or a position outside the shape.
  public func selected(axis: Int, index: Int) throws -> Tensor {
    let axis = try normalizedAxis("select", axis, shape)
    guard index >= -shape[axis], index < shape[axis] else {
      throw KDSError.argument("select: index \(index) is outside axis \(axis) of \(shape)")
    }
    let position = index < 0 ? index + shape[axis] : index
    var target = shape
    target.remove(at: axis)
    return try sliced(axis: axis, from: position, to: position + 1).reshaped(target)
  }

  /// The tensor cut into parts of the given sizes along an axis; the sizes must add up to its length.
  public func split(_ sizes: [Int], axis: Int) throws -> [Tensor] {
    let axis = try normalizedAxis("split", axis, shape)
    try requireSize("split", sizes)
    guard sizes.reduce(0, +) == shape[axis] else {
      throw KDSError.shape("split: sizes \(sizes) do not add up to axis \(axis) of \(shape)")
    }
    var first = 0
    return try sizes.map { size in
      defer { first += size }
      return try sliced(axis: axis, from: first, to: first + size)
    }
  }

  /// With `value` around it: (before, after) elements per axis. Spatial padding keeps the layout.
  ///
  /// - Throws: `KDSError.shape` when there is not one pair per axis or an amount is negative.
  public func padded(_ amounts: [(before: Int, after: Int)], value: Float = 0) throws -> Tensor {
    try requireFloats("pad", [self])
    guard amounts.count == rank,
      amounts.allSatisfy({
        (0...(1 << 40)).contains($0.before) && (0...(1 << 40)).contains($0.after)
      })
    else {
      throw KDSError.shape(
        "pad: needs (before, after), not negative, for each axis of \(shape), got \(amounts)")
    }
    if amounts.allSatisfy({ $0.before == 0 && $0.after == 0 }) { return self }
    let target = try requireSize(
      "pad", zip(shape, amounts).map { $0 + $1.before + $1.after })
    let source = try rank == 4 && amounts[1].before + amounts[1].after > 0 ? plain() : widened()
    let result = try Tensor(filled: value, shape: target, layout: source.layout)
    let strides = LoopNest.contiguous(result.memoryShape)
    let offset = zip(amounts, strides).reduce(0) { $0 + $1.0.before * $1.1 }
    let nest = LoopNest(sizes: source.memoryShape, strides: [strides])
    result.scatter(from: source, nest, offset: source.count > 0 ? offset : 0)
    let (original, layout) = (source.shape, source.layout)
    return Tape.record(result, "pad", [source]) { gradient in
      let toSource = try Tensor(uninitialized: original, layout: layout)
      toSource.gather(from: gradient, nest, offset: offset)
      return [toSource]
    }
  }
}

/// Python's rule for a slice position: negative from the end, then cut to 0...length.
private func clampedPosition(_ position: Int, _ length: Int) -> Int {
  let counted = position < 0 ? max(position, -length) + length : position
  return min(counted, length)
}
