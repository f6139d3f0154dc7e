import KDSKernels

extension Tensor {
  /// Sum over the given axes (nil: all, to a scalar). Double precision across chunks; the result does
  /// not depend on the number of threads.
  public func summed(axes: [Int]? = nil, keepDims: Bool = false) throws -> Tensor {
    try reducedSum("sum", axes, keepDims) { _ in 1 }
  }

  /// Mean over the given axes (nil: all); NaN for an empty tensor.
  public func mean(axes: [Int]? = nil, keepDims: Bool = false) throws -> Tensor {
    try reducedSum("mean", axes, keepDims) { 1 / Double($0) }
  }

  /// Variance over the given axes (nil: all), divided by n - 1 if `unbiased`, else by n.
  public func variance(
    axes: [Int]? = nil, unbiased: Bool = true, keepDims: Bool = false
  ) throws -> Tensor {
    let list = try normalizedAxes("var", axes, shape)
    let centred = try subtracting(mean(axes: list, keepDims: true))
    return try centred.squared().reducedSum("var", list, keepDims) {
      1 / Double(unbiased ? $0 - 1 : $0)
    }
  }

  /// Largest element over one axis, and where it stands (int64). The gradient goes to that element,
  /// the first of equal ones.
  public func largest(axis: Int, keepDims: Bool = false) throws -> (Tensor, Tensor) {
    try extreme("max", axis, keepDims, largest: true)
  }

  /// Smallest element over one axis, and where it stands (int64); see `largest`.
  public func smallest(axis: Int, keepDims: Bool = false) throws -> (Tensor, Tensor) {
    try extreme("min", axis, keepDims, largest: false)
  }

  /// Largest element over several axes (nil: all); the gradient goes to the first of equal ones.
  public func maximum(axes: [Int]? = nil, keepDims: Bool = false) throws -> Tensor {
    try extremeOverAxes("max", axes, keepDims, largest: true)
  }

  /// Smallest element over several axes (nil: all); the gradient goes to the first of equal ones.
  public func minimum(axes: [Int]? = nil, keepDims: Bool = false) throws -> Tensor {
    try extremeOverAxes("min", axes, keepDims, largest: false)
  }

  /// Index of the largest element along an axis, the first of equal ones; int64.
  public func argmax(axis: Int, keepDims: Bool = false) throws -> Tensor {
    try Tape.withoutGrad { try largest(axis: axis, keepDims: keepDims).1 }
  }

  /// Index of the smallest element along an axis, the first of equal ones; int64.
  public func argmin(axis: Int, keepDims: Bool = false) throws -> Tensor {
    try Tape.withoutGrad { try smallest(axis: axis, keepDims: keepDims).1 }
  }

  // MARK: - Parts

  /// The shape after a reduction.
  private func reducedShape(_ axes: [Int], keepDims: Bool) -> [Int] {
    let gone = Set(axes)
    if keepDims { return shape.indices.map { gone.contains($0) ? 1 : shape[$0] } }
    return shape.indices.filter { !gone.contains($0) }.map { shape[$0] }
  }

  private func reducedSum(
    _ name: String, _ axes: [Int]?, _ keepDims: Bool, _ factor: (Int) -> Double
  ) throws -> Tensor {
    if layout == .half { return try widened().reducedSum(name, axes, keepDims, factor) }
    try requireFloats(name, [self])
    let list = try normalizedAxes(name, axes, shape)
    let kept = reducedShape(list, keepDims: true)
    let scale = factor(list.reduce(1) { $0 * shape[$1] })
    var mask = shape.indices.map(list.contains)
    var outLayout = layout
    if case .blocked = layout {
      mask.append(mask[1])
      if mask[1] { outLayout = .plain }
    }
    let result = try Tensor(uninitialized: kept, layout: outLayout)
    Kernels.reduceSum(
      floats, result.floats, ReducePlan(shape: memoryShape, reducing: mask), scale: scale)
    let (target, targetLayout) = (shape, layout)
    Tape.record(result, name, [self]) { gradient in
      [try gradient.multiplied(by: Float(scale)).expanded(to: target, layout: targetLayout)]
    }
    return keepDims ? result : try result.reshaped(reducedShape(list, keepDims: false))
  }

  private func extremeOverAxes(
    _ name: String, _ axes: [Int]?, _ keepDims: Bool, largest: Bool
  ) throws -> Tensor {
    let list = try normalizedAxes(name, axes, shape)
    let rest = shape.indices.filter { !list.contains($0) }
    let rows = try permuted(rest + list).reshaped(
      rest.map { shape[$0] } + [list.reduce(1) { $0 * shape[$1] }])
    let result = try rows.extreme(name, -1, false, largest: largest).0
    return try result.reshaped(reducedShape(list, keepDims: keepDims))
  }

  private func extreme(
    _ name: String, _ axis: Int, _ keepDims: Bool, largest: Bool
  ) throws -> (Tensor, Tensor) {
    try requireFloats(name, [self])
    let axis = try normalizedAxis(name, axis, shape)
    guard shape[axis] > 0 else {
      throw KDSError.shape("\(name): axis \(axis) of \(shape) is empty")
    }
    let rest = shape.indices.filter { $0 != axis }
    let source = try permuted(rest + [axis])
    let columns = shape[axis]
    let reduced = reducedShape([axis], keepDims: keepDims)
    let indices = try Tensor(uninitialized: reduced, dtype: .int64)
    let rows = indices.count
    Kernels.extremeIndex(
      source.floats, indices.integers, rows: rows, columns: columns, largest: largest)
    let result = try Tensor(uninitialized: reduced)
    for row in 0..<rows {
      result.floats[row] = source.floats[row * columns + Int(indices.integers[row])]
    }
    let target = source.shape
    Tape.record(result, name, [source]) { gradient in
      let toSource = try Tensor.zeros(target)
      let plain = try gradient.plain()
      for row in 0..<rows {
        toSource.floats[row * columns + Int(indices.integers[row])] = plain.floats[row]
      }
      return [toSource]
    }
    return (result, indices)
  }
}
