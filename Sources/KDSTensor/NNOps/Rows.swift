import KDSKernels

extension Tensor {
  /// Rows of a matrix by index: (N, C) and S indices to (S, C). Indices may repeat.
  public func gatherRows(_ indices: [Int]) throws -> Tensor {
    guard rank == 2, dtype == .float32 else {
      throw KDSError.shape("gather_rows: input must be (N, C), got \(shape)")
    }
    let (rows, columns) = (shape[0], shape[1])
    if let bad = indices.first(where: { $0 < 0 || $0 >= rows }) {
      throw KDSError.argument("gather_rows: index \(bad) is outside 0..<\(rows)")
    }
    let result = try Tensor(uninitialized: [indices.count, columns])
    for (row, index) in indices.enumerated() {
      (result.floats + row * columns).update(from: floats + index * columns, count: columns)
    }
    return Tape.record(result, "gather_rows", [self]) { gradient in
      let back = try Tensor.zeros([rows, columns])
      for (row, index) in indices.enumerated() {
        let (to, from) = (back.floats + index * columns, gradient.floats + row * columns)
        for column in 0..<columns { to[column] += from[column] }
      }
      return [back]
    }
  }

  /// One group of 4 (or `width`) columns per row: (N, K·width) and class per row to (N, width).
  public func gatherColumnGroups(_ groups: [Int], width: Int = 4) throws -> Tensor {
    guard rank == 2, groups.count == shape[0], shape[1] % width == 0 else {
      throw KDSError.shape(
        "gather_column_groups: input \(shape) must be (N, K * \(width)) with \(groups.count) rows")
    }
    let (rows, columns) = (shape[0], shape[1])
    if let bad = groups.first(where: { $0 < 0 || ($0 + 1) * width > columns }) {
      throw KDSError.argument("gather_column_groups: group \(bad) is outside input \(shape)")
    }
    let result = try Tensor(uninitialized: [rows, width])
    for row in 0..<rows {
      (result.floats + row * width).update(
        from: floats + row * columns + groups[row] * width, count: width)
    }
    return Tape.record(result, "gather_column_groups", [self]) { gradient in
      let back = try Tensor.zeros([rows, columns])
      for row in 0..<rows {
        (back.floats + row * columns + groups[row] * width).update(
          from: gradient.floats + row * width, count: width)
      }
      return [back]
    }
  }

  /// Channels last: (N, C, H, W), any layout, to plain (N, H, W, C).
  public func channelsLast() throws -> Tensor {
    if layout == .half { return try widened().channelsLast() }
    guard rank == 4, dtype == .float32 else {
      throw KDSError.shape("channels_last: input must be (N, C, H, W), got \(shape)")
    }
    let geometry = ChannelGeometry(self)
    let result = try Tensor(uninitialized: [shape[0], shape[2], shape[3], shape[1]])
    Kernels.channelsLast(floats, result.floats, geometry)
    let (sourceShape, sourceLayout) = (shape, layout)
    return Tape.record(result, "channels_last", [self]) { gradient in
      let back = try Tensor(uninitialized: sourceShape, layout: sourceLayout)
      Kernels.channelsFirst(gradient.floats, back.floats, geometry)
      return [back]
    }
  }
}
