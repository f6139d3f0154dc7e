import KDSKernels

extension Tensor {
  /// Slices of an axis in the order of `index` (1-D int64); negative indices count from the end.
  ///
  /// - Throws: `KDSError.argument` for an index outside the axis.
  public func indexSelected(axis: Int, _ index: Tensor) throws -> Tensor {
    let axis = try normalizedAxis("index_select", axis, shape)
    guard index.rank == 1 else {
      throw KDSError.shape("index_select: index must be 1-D, not of shape \(index.shape)")
    }
    let places = try index.positions("index_select", axis, of: shape)
    let source = try plain()
    let outer = shape[..<axis].reduce(1, *)
    let (length, inner) = (shape[axis], shape[(axis + 1)...].reduce(1, *))
    let taken = places.count
    var target = shape
    target[axis] = taken
    let result = try Tensor(uninitialized: requireSize("index_select", target), dtype: dtype)
    if dtype == .float32 {
      Kernels.takeSlices(
        source.floats, places.integers, result.floats, outer: outer, length: length, taken: taken,
        inner: inner)
    } else {
      Kernels.takeSlices(
        source.integers, places.integers, result.integers, outer: outer, length: length,
        taken: taken, inner: inner)
    }
    let whole = shape
    return Tape.record(result, "index_select", [source]) { gradient in
      let toSource = try Tensor.zeros(whole)
      Kernels.addSlices(
        gradient.floats, places.integers, toSource.floats, outer: outer, length: length,
        taken: taken, inner: inner)
      return [toSource]
    }
  }

  /// Rows in the order of `index` (1-D int64).
  public func takingRows(_ index: Tensor) throws -> Tensor {
    try indexSelected(axis: 0, index)
  }

  /// out[…, i, …] = self[…, index[…, i, …], …] along an axis, as `torch.gather`.
  ///
  /// - Shapes: `index` (int64) has the rank of self and is nowhere larger off the axis; the result has
  ///   its shape.
  /// - Throws: `KDSError.argument` for an index outside the axis.
  public func gathered(axis: Int, _ index: Tensor) throws -> Tensor {
    let axis = try normalizedAxis("gather", axis, shape)
    guard index.rank == rank,
      shape.indices.allSatisfy({ $0 == axis || index.shape[$0] <= shape[$0] })
    else {
      throw KDSError.shape(
        "gather: index \(index.shape) does not fit input \(shape) off axis \(axis)")
    }
    let places = try index.positions("gather", axis, of: shape)
    let source = try plain()
    var strides = LoopNest.contiguous(shape)
    let step = strides[axis]
    strides[axis] = 0
    let nest = LoopNest(sizes: index.shape, strides: [strides])
    let result = try Tensor(uninitialized: index.shape, dtype: dtype)
    if result.count > 0, dtype == .float32 {
      Kernels.gatherElements(source.floats, places.integers, result.floats, nest, step: step)
    } else if result.count > 0 {
      Kernels.gatherElements(source.integers, places.integers, result.integers, nest, step: step)
    }
    let whole = shape
    return Tape.record(result, "gather", [source]) { gradient in
      let toSource = try Tensor.zeros(whole)
      if gradient.count > 0 {
        Kernels.addElements(gradient.floats, places.integers, toSource.floats, nest, step: step)
      }
      return [toSource]
    }
  }

  /// The parts where `mask` is not 0, one after the other.
  ///
  /// - Shapes: `mask` covers the leading axes of self; the result is (count, remaining axes…).
  public func maskSelected(_ mask: Tensor) throws -> Tensor {
    guard mask.rank >= 1, mask.rank <= rank, Array(shape[..<mask.rank]) == mask.shape else {
      throw KDSError.shape(
        "masked_select: mask \(mask.shape) does not cover the leading axes of \(shape)")
    }
    let rest = Array(shape[mask.rank...])
    let rows = try reshaped([mask.count] + rest)
    return try rows.indexSelected(axis: 0, mask.reshaped([mask.count]).nonzero().flattened())
  }

  /// Positions of the elements that are not 0: (count, rank) int64, row-major order.
  public func nonzero() throws -> Tensor {
    let source = try detached().plain()
    let found = (0..<count).filter {
      dtype == .float32 ? source.floats[$0] != 0 : source.integers[$0] != 0
    }
    let strides = LoopNest.contiguous(shape)
    let result = try Tensor(uninitialized: [found.count, rank], dtype: .int64)
    for (row, place) in found.enumerated() {
      for axis in 0..<rank {
        result.integers[row * rank + axis] = Int64(place / strides[axis] % shape[axis])
      }
    }
    return result
  }

  /// These indices as positions of an axis of `target`: checked, negative ones counted from the end.
  private func positions(_ name: String, _ axis: Int, of target: [Int]) throws -> Tensor {
    try requireIntegers(name, "index", self)
    let result = try Tensor(uninitialized: shape, dtype: .int64)
    let length = Int64(target[axis])
    for place in 0..<count {
      let value = integers[place]
      guard value >= -length, value < length else {
        throw KDSError.argument(
          "\(name): index \(value) is outside axis \(axis) of the shape \(target)")
      }
      result.integers[place] = value < 0 ? value + length : value
    }
    return result
  }
}
