import KDSKernels

extension Tensor {
  /// Tensors joined along an axis. Blocked inputs stay blocked, unless channels are joined and an
  /// inner one does not fill its blocks.
  ///
  /// - Throws: `KDSError.shape` for an empty list or sizes that differ off the axis;
  ///   `KDSError.argument` for mixed element types.
  public static func concatenated(_ tensors: [Tensor], axis: Int) throws -> Tensor {
    guard let first = tensors.first else {
      throw KDSError.shape("cat: needs at least one tensor")
    }
    let axis = try normalizedAxis("cat", axis, first.shape)
    try checkParts(tensors, axis)
    let layout = joinedLayout(tensors, axis)
    let parts = try tensors.map { try $0.inLayout(layout) }
    var target = first.shape
    target[axis] = parts.reduce(0) { $0 + $1.shape[axis] }
    let result = try Tensor(
      uninitialized: requireSize("cat", target), dtype: first.dtype, layout: layout)
    let strides = LoopNest.contiguous(result.memoryShape)
    var position = 0
    var places: [(nest: LoopNest, offset: Int)] = []
    for part in parts {
      let sizes = part.memoryShape
      places.append((LoopNest(sizes: sizes, strides: [strides]), position * strides[axis]))
      if part.count > 0 {
        result.scatter(from: part, places.last!.nest, offset: places.last!.offset)
      }
      position += sizes[axis]
    }
    let wanted = parts.map(\.isTracked)
    let shapes = parts.map(\.shape)
    return Tape.record(result, "cat", parts) { gradient in
      try places.indices.map { index in
        guard wanted[index] else { return nil }
        let piece = try Tensor(uninitialized: shapes[index], layout: layout)
        piece.gather(from: gradient, places[index].nest, offset: places[index].offset)
        return piece
      }
    }
  }

  /// Tensors of one shape joined along a new axis (negative: counted from the end of the result).
  public static func stacked(_ tensors: [Tensor], axis: Int) throws -> Tensor {
    for tensor in tensors.dropFirst() {
      try requireSameShape("stack", "all tensors", tensors[0].shape, tensor.shape)
    }
    guard let first = tensors.first else {
      throw KDSError.shape("stack: needs at least one tensor")
    }
    guard axis >= -first.rank - 1, axis <= first.rank else {
      throw KDSError.argument("stack: axis \(axis) is outside the shape \(first.shape)")
    }
    let position = axis < 0 ? axis + first.rank + 1 : axis
    return try concatenated(try tensors.map { try $0.unsqueezed(axis: position) }, axis: position)
  }

  private static func checkParts(_ tensors: [Tensor], _ axis: Int) throws {
    let first = tensors[0]
    for tensor in tensors {
      guard tensor.dtype == first.dtype else {
        throw KDSError.argument("cat: \(first.dtype) and \(tensor.dtype) do not join")
      }
      guard tensor.rank == first.rank,
        tensor.shape.indices.allSatisfy({ $0 == axis || tensor.shape[$0] == first.shape[$0] })
      else {
        throw KDSError.shape(
          "cat: shapes \(first.shape) and \(tensor.shape) differ off axis \(axis)")
      }
    }
  }

  private static func joinedLayout(_ tensors: [Tensor], _ axis: Int) -> Layout {
    guard let blocked = tensors.first(where: { $0.layout != .plain })?.layout,
      tensors.allSatisfy({ $0.dtype == .float32 }),
      axis != 1 || tensors.dropLast().allSatisfy({ $0.shape[1] % Layout.preferredBlock == 0 })
    else { return .plain }
    return blocked == .half ? .preferred : blocked
  }
}
