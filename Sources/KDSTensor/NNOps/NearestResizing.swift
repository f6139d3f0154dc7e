import KDSKernels

extension Tensor {
  /// Nearest-neighbour resizing, as `interpolate(mode="nearest")`: output pixel i shows input pixel
  /// floor(i · input / output).
  ///
  /// - Shapes: (N, C, H, W), any layout, kept, to (N, C, size).
  public func resizedNearest(_ size: Size2) throws -> Tensor {
    guard rank == 4, dtype == .float32, count > 0, size.height > 0, size.width > 0 else {
      throw KDSError.shape("interpolate: input \(shape) cannot be resized to \(size)")
    }
    if layout == .half { return try resizedNearestHalf(size) }
    let map = MapGeometry(self)
    let result = try Tensor(
      uninitialized: [shape[0], shape[1], size.height, size.width], layout: layout)
    Kernels.nearestForward(
      floats, map: map, outHeight: size.height, outWidth: size.width, output: result.floats)
    let (sourceShape, sourceLayout) = (shape, layout)
    return Tape.record(result, "interpolate", [self]) { gradient in
      let back = try Tensor(uninitialized: sourceShape, layout: sourceLayout)
      Kernels.nearestBackward(
        gradOutput: gradient.floats, map: map, outHeight: size.height, outWidth: size.width,
        gradInput: back.floats)
      return [back]
    }
  }
}
