import KDSKernels

extension Tensor {
  /// The axes in a new order; a copy, plain. `self` when the order is the present one.
  ///
  /// - Parameter order: for each axis of the result, the axis of `self` that it shows.
  public func permuted(_ order: [Int]) throws -> Tensor {
    let axes = try order.map { try normalizedAxis("permute", $0, shape) }
    guard axes.count == rank, Set(axes).count == rank else {
      throw KDSError.argument("permute: \(order) is not an order of the axes of \(shape)")
    }
    let source = try plain()
    if axes == Array(shape.indices) { return source }
    let result = try Tensor(uninitialized: axes.map { shape[$0] }, dtype: dtype)
    let strides = LoopNest.contiguous(shape)
    result.gather(from: source, LoopNest(sizes: result.shape, strides: [axes.map { strides[$0] }]))
    var inverse = axes
    for (position, axis) in axes.enumerated() { inverse[axis] = position }
    return Tape.record(result, "permute", [source]) { [try $0.permuted(inverse)] }
  }

  /// Two axes exchanged; the last two by default.
  public func transposed(_ first: Int = -2, _ second: Int = -1) throws -> Tensor {
    let a = try normalizedAxis("transpose", first, shape)
    let b = try normalizedAxis("transpose", second, shape)
    var order = Array(shape.indices)
    order.swapAt(a, b)
    return try permuted(order)
  }

  /// Without axes of size 1: the given one, or all of them.
  public func squeezed(axis: Int? = nil) throws -> Tensor {
    guard let axis else { return try reshaped(shape.filter { $0 != 1 }) }
    let position = try normalizedAxis("squeeze", axis, shape)
    if shape[position] != 1 { return self }
    var target = shape
    target.remove(at: position)
    return try reshaped(target)
  }

  /// With a new axis of size 1 before position `axis` (negative: counted from the end of the result).
  public func unsqueezed(axis: Int) throws -> Tensor {
    let position = axis < 0 ? axis + rank + 1 : axis
    guard position >= 0, position <= rank else {
      throw KDSError.argument("unsqueeze: axis \(axis) is outside the shape \(shape)")
    }
    var target = shape
    target.insert(1, at: position)
    return try reshaped(target)
  }

  /// Axes `start...end` merged into one.
  public func flattened(from start: Int = 0, to end: Int = -1) throws -> Tensor {
    if rank == 0 { return try reshaped([1]) }
    let first = try normalizedAxis("flatten", start, shape)
    let last = try normalizedAxis("flatten", end, shape)
    guard first <= last else {
      throw KDSError.argument("flatten: axis \(start) comes after axis \(end) in \(shape)")
    }
    let merged = shape[first...last].reduce(1, *)
    return try reshaped(Array(shape[..<first]) + [merged] + Array(shape[(last + 1)...]))
  }

  /// Fills this fresh tensor from `source` along a loop nest.
  func gather(from source: Tensor, _ nest: LoopNest, offset: Int = 0) {
    if count == 0 { return }
    switch dtype {
    case .float32: Kernels.gatherStrided(source.floats + offset, floats, nest)
    case .int64: Kernels.gatherStrided(source.integers + offset, integers, nest)
    }
  }

  /// Writes the elements of `source` to positions of this fresh tensor along a loop nest.
  func scatter(from source: Tensor, _ nest: LoopNest, offset: Int = 0) {
    if source.count == 0 { return }
    switch dtype {
    case .float32: Kernels.scatterStrided(source.floats, floats + offset, nest)
    case .int64: Kernels.scatterStrided(source.integers, integers + offset, nest)
    }
  }
}
