import KDSKernels

extension Tensor {
  /// Means over cells that cut (N, C, H, W) into the given size, as
  /// `torch.nn.functional.adaptive_avg_pool2d`; any layout, kept.
  public func adaptiveAveragePool2d(_ size: Size2) throws -> Tensor {
    if layout == .half { return try widened().adaptiveAveragePool2d(size) }
    let name = "adaptive_avg_pool2d"
    try requireFloats(name, [self])
    guard rank == 4, shape[2] > 0, shape[3] > 0, size.height > 0, size.width > 0 else {
      throw KDSError.shape("\(name): \(shape) must be (N, C, H, W) and \(size) not empty")
    }
    let target = try requireSize(name, [shape[0], shape[1], size.height, size.width])
    let map = MapGeometry(self)
    let result = try Tensor(uninitialized: target, layout: layout)
    Kernels.adaptiveAverageForward(
      floats, map: map, outHeight: size.height, outWidth: size.width, output: result.floats)
    let (whole, wholeLayout) = (shape, layout)
    return Tape.record(result, name, [self]) { gradient in
      let toSource = try Tensor(uninitialized: whole, layout: wholeLayout)
      Kernels.adaptiveAverageBackward(
        gradOutput: gradient.floats, map: map, outHeight: size.height, outWidth: size.width,
        gradInput: toSource.floats)
      return [toSource]
    }
  }
}
