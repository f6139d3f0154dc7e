import KDSKernels

extension Tensor {
  /// Bilinear resizing with half-pixel centres, as `interpolate(mode="bilinear", align_corners=False)`.
  ///
  /// - Shapes: (N, C, H, W), any layout, kept, to (N, C, size).
  public func resizedBilinear(_ size: Size2) throws -> Tensor {
    if layout == .half { return try widened().resizedBilinear(size) }
    guard rank == 4, dtype == .float32, count > 0, size.height > 0, size.width > 0 else {
      throw KDSError.shape("interpolate: input \(shape) cannot be resized to \(size)")
    }
    let map = MapGeometry(self)
    let result = try Tensor(
      uninitialized: [shape[0], shape[1], size.height, size.width], layout: layout)
    Kernels.bilinearForward(
      floats, map: map, outHeight: size.height, outWidth: size.width, output: result.floats)
    let (sourceShape, sourceLayout) = (shape, layout)
    return Tape.record(result, "interpolate", [self]) { gradient in
      let back = try Tensor(uninitialized: sourceShape, layout: sourceLayout)
      Kernels.bilinearBackward(
        gradOutput: gradient.floats, map: map, outHeight: size.height, outWidth: size.width,
        gradInput: back.floats)
      return [back]
    }
  }
}
