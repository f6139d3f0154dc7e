import KDSKernels

extension Tensor {
  /// The top left corner of a map: (N, C, H, W) to (N, C, size), any layout, kept.
  public func cropped(_ size: Size2) throws -> Tensor {
    if layout == .half { return try widened().cropped(size) }
    guard rank == 4, dtype == .float32, size.height > 0, size.width > 0, size.height <= shape[2],
      size.width <= shape[3]
    else { throw KDSError.shape("crop: input \(shape) cannot be cut to \(size)") }
    if size == Size2(shape[2], shape[3]) { return self }
    let result = try Tensor(
      uninitialized: [shape[0], shape[1], size.height, size.width], layout: layout)
    let (from, rows) = (MapGeometry(self), size.height)
    let line = size.width * from.block
    for plane in 0..<from.images * from.groups {
      for row in 0..<rows {
        (result.floats + (plane * rows + row) * line).update(
          from: floats + (plane * from.height + row) * from.width * from.block, count: line)
      }
    }
    let (sourceShape, sourceLayout) = (shape, layout)
    return Tape.record(result, "crop", [self]) { gradient in
      let back = try Tensor.zeros(sourceShape, layout: sourceLayout)
      for plane in 0..<from.images * from.groups {
        for row in 0..<rows {
          (back.floats + (plane * from.height + row) * from.width * from.block).update(
            from: gradient.floats + (plane * rows + row) * line, count: line)
        }
      }
      return [back]
    }
  }
}
