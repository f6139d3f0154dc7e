import KDSKernels

extension Tensor {
  /// Matrix product, as `torch.matmul`: the last two axes are matrices, leading axes broadcast.
  ///
  /// - Shapes: (…, m, k) and (…, k, n) to (…, m, n). A 1-D tensor is a row on the left and a column on
  ///   the right, and its axis is gone from the result.
  /// - Throws: `KDSError.shape` when the inner sizes differ or a tensor is a scalar.
  public func matmul(_ other: Tensor) throws -> Tensor {
    try requireFloats("matmul", [self, other])
    guard rank > 0, other.rank > 0 else {
      throw KDSError.shape("matmul: \(shape) and \(other.shape): a scalar is not a matrix")
    }
    let a = rank == 1 ? try unsqueezed(axis: 0) : try plain()
    let b = other.rank == 1 ? try other.unsqueezed(axis: 1) : try other.plain()
    guard a.shape[a.rank - 1] == b.shape[b.rank - 2],
      max(a.shape.max() ?? 0, b.shape.max() ?? 0) <= Int(Int32.max)
    else {
      throw KDSError.shape("matmul: inner sizes of \(shape) and \(other.shape) differ")
    }
    // One large product is faster than a batch of products with the same right side.
    if a.rank > 2, b.rank == 2, a.count / max(a.shape[a.rank - 1], 1) <= Int(Int32.max) {
      let flat = try a.reshaped([a.shape.dropLast().reduce(1, *), a.shape[a.rank - 1]])
      let product = try flat.matmul(b)
      let target = Array(a.shape.dropLast()) + (other.rank == 1 ? [] : [b.shape[1]])
      return try product.reshaped(target)
    }
    let product = try batchedProduct(a, b)
    var target = product.shape
    if other.rank == 1 { target.removeLast() }
    if rank == 1 { target.remove(at: target.count - (other.rank == 1 ? 1 : 2)) }
    return target == product.shape ? product : try product.reshaped(target)
  }

  /// Sum of products of two 1-D tensors of one length.
  public func dot(_ other: Tensor) throws -> Tensor {
    guard rank == 1, other.rank == 1 else {
      throw KDSError.shape("dot: needs two 1-D tensors, got \(shape) and \(other.shape)")
    }
    try requireSameShape("dot", "both tensors", shape, other.shape)
    return try multiplied(by: other).summed()
  }
}

/// a · b over broadcast leading axes, on the tape; both plain, of rank 2 or more, inner sizes equal.
private func batchedProduct(_ a: Tensor, _ b: Tensor) throws -> Tensor {
  let result = try multiplyBatches(a, false, b, false)
  let (wantsA, wantsB) = (a.isTracked, b.isTracked)
  let (valueA, valueB) = (a.detachedView(), b.detachedView())
  return Tape.record(result, "matmul", [a, b]) { gradient in
    [
      wantsA ? try multiplyBatches(gradient, false, valueB, true).summed(to: valueA.shape) : nil,
      wantsB ? try multiplyBatches(valueA, true, gradient, false).summed(to: valueB.shape) : nil,
    ]
  }
}

/// Products of all pairs of matrices, either side transposed if asked for.
private func multiplyBatches(
  _ a: Tensor, _ transposeA: Bool, _ b: Tensor, _ transposeB: Bool
) throws -> Tensor {
  let (rowsA, columnsA) = (a.shape[a.rank - 2], a.shape[a.rank - 1])
  let (rowsB, columnsB) = (b.shape[b.rank - 2], b.shape[b.rank - 1])
  let (m, k) = transposeA ? (columnsA, rowsA) : (rowsA, columnsA)
  let n = transposeB ? rowsB : columnsB
  let (batchA, batchB) = (Array(a.shape.dropLast(2)), Array(b.shape.dropLast(2)))
  let batch = try broadcastShape("matmul", batchA, batchB)
  let result = try Tensor(uninitialized: requireSize("matmul", batch + [m, n]))
  let placesA = matrixPlaces(batchA, batch)
  let placesB = matrixPlaces(batchB, batch)
  let (x, y, out) = (a.floats, b.floats, result.floats)
  func multiply(_ index: Int) {
    gemm(
      m, n, k, x + placesA[index] * rowsA * columnsA, transposeA,
      y + placesB[index] * rowsB * columnsB, transposeB, out + index * m * n)
  }
  // Small matrices: one per thread. Large ones: the threads share each product.
  let count = batch.reduce(1, *)
  if count > 1 && m * n * k < 1 << 20 {
    parallelFor(count: count, grain: max(1, 1 << 16 / max(1, m * n * k))) { range in
      for index in range { multiply(index) }
    }
  } else {
    for index in 0..<count { multiply(index) }
  }
  return result
}

/// For each matrix of the broadcast batch, the position of the matrix it comes from.
private func matrixPlaces(_ batch: [Int], _ target: [Int]) -> [Int] {
  let padded = leftPadded(batch, to: target.count)
  let strides = LoopNest.broadcast(padded, to: target)
  var places = [0]
  for axis in target.indices {
    places = places.flatMap { place in (0..<target[axis]).map { place + $0 * strides[axis] } }
  }
  return places
}
