import KDSKernels

/// Maps as tokens: (N, H, W, C), plain, the form of transformers.
extension Tensor {
  /// (N, C, H, W) in any layout to (N, H, W, C).
  public func tokens() throws -> Tensor {
    if layout == .half { return try widened().tokens() }
    guard rank == 4, dtype == .float32 else {
      throw KDSError.shape("tokens: input \(shape) must be a float (N, C, H, W)")
    }
    let (map, original) = (MapGeometry(self), layout)
    let result = try Tensor(uninitialized: [shape[0], shape[2], shape[3], shape[1]])
    Kernels.channelsLast(floats, map, result.floats)
    return Tape.record(result, "tokens", [self]) { [try $0.featureMap(original)] }
  }

  /// (N, H, W, C) to (N, C, H, W) in the layout of convolutions, or another float32 one.
  public func featureMap(_ layout: Layout = .preferred) throws -> Tensor {
    guard rank == 4, dtype == .float32, layout != .half else {
      throw KDSError.shape("feature_map: input \(shape) must be a float (N, H, W, C)")
    }
    let source = try plain()
    let target = [shape[0], shape[3], shape[1], shape[2]]
    let result = try Tensor(uninitialized: target, layout: layout)
    Kernels.channelsFirst(source.floats, MapGeometry(result), result.floats)
    return Tape.record(result, "feature_map", [source]) { [try $0.tokens()] }
  }

  /// Four neighbours in one token (Liu et al. 2021, patch merging): (N, H, W, C) to
  /// (N, ⌈H/2⌉, ⌈W/2⌉, 4C), the neighbours in the order (0, 0), (1, 0), (0, 1), (1, 1) as (row,
  /// column), zeros behind odd sides.
  public func mergedPatches() throws -> Tensor {
    let name = "merge_patches"
    try requireFloats(name, [self])
    guard rank == 4 else { throw KDSError.shape("\(name): input \(shape) must be (N, H, W, C)") }
    let source = try plain()
    let sizes = shape
    let result = try Tensor(
      uninitialized: requireSize(
        name, [sizes[0], (sizes[1] + 1) / 2, (sizes[2] + 1) / 2, 4 * sizes[3]]))
    Kernels.mergePatches(
      source.floats, images: sizes[0], height: sizes[1], width: sizes[2], channels: sizes[3],
      result.floats)
    return Tape.record(result, name, [source]) { gradient in
      let back = try Tensor(uninitialized: sizes)
      Kernels.splitPatches(
        gradient.floats, images: sizes[0], height: sizes[1], width: sizes[2], channels: sizes[3],
        back.floats)
      return [back]
    }
  }
}
