import KDSKernels

extension Tensor {
  /// RoIAlign (He et al. 2017) with the semantics of `torchvision.ops.roi_align`.
  ///
  /// - Shapes: self (N, C, H, W), any layout; rois (R, 5): image, x1, y1, x2, y2 in image pixels;
  ///   result (R, C, grid.height, grid.width), plain. No gradient goes to the regions.
  public func roiAlign(_ rois: Tensor, grid: RoIGrid) throws -> Tensor {
    try checkRoIs("roi_align", rois, grid)
    let map = MapGeometry(self)
    let result = try Tensor(uninitialized: [rois.shape[0], shape[1], grid.height, grid.width])
    Kernels.roiAlignForward(
      floats, map: map, rois: rois.floats, rois.shape[0], grid: grid, output: result.floats)
    let (sourceShape, sourceLayout, regions) = (shape, layout, rois.detachedView())
    return Tape.record(result, "roi_align", [self]) { gradient in
      let back = try Tensor(uninitialized: sourceShape, layout: sourceLayout)
      Kernels.roiAlignBackward(
        gradOutput: gradient.floats, map: map, rois: regions.floats, regions.shape[0], grid: grid,
        gradInput: back.floats)
      return [back]
    }
  }

  /// RoI max pooling (Girshick 2015) with the rounding of `torchvision.ops.roi_pool`; shapes as `roiAlign`.
  public func roiPool(_ rois: Tensor, grid: RoIGrid) throws -> Tensor {
    try checkRoIs("roi_pool", rois, grid)
    let map = MapGeometry(self)
    let result = try Tensor(uninitialized: [rois.shape[0], shape[1], grid.height, grid.width])
    let winners = try Storage(byteCount: max(result.count, 1) * 4)
    let argmax = winners.pointer.assumingMemoryBound(to: Int32.self)
    Kernels.roiPoolForward(
      floats, map: map, rois: rois.floats, rois.shape[0], grid: grid, output: result.floats,
      argmax: argmax)
    let (sourceShape, sourceLayout, regions) = (shape, layout, rois.detachedView())
    return Tape.record(result, "roi_pool", [self]) { gradient in
      let back = try Tensor(uninitialized: sourceShape, layout: sourceLayout)
      Kernels.roiPoolBackward(
        gradOutput: gradient.floats,
        argmax: winners.pointer.assumingMemoryBound(to: Int32.self), map: map,
        rois: regions.floats, regions.shape[0], grid: grid, gradInput: back.floats)
      return [back]
    }
  }

  private func checkRoIs(_ name: String, _ rois: Tensor, _ grid: RoIGrid) throws {
    guard rank == 4, dtype == .float32, rois.rank == 2, rois.shape[1] == 5, rois.dtype == .float32
    else {
      throw KDSError.shape(
        "\(name): input \(shape) must be (N, C, H, W) and rois \(rois.shape) (R, 5)")
    }
    guard grid.height > 0, grid.width > 0 else {
      throw KDSError.argument("\(name): output size \(grid.height)x\(grid.width) must be positive")
    }
    for row in 0..<rois.shape[0] {
      let image = rois.floats[5 * row]
      if !(image >= 0 && image < Float(shape[0])) {
        throw KDSError.argument("\(name): rois[\(row)] names image \(image) of \(shape[0])")
      }
    }
  }
}

extension MapGeometry {
  init(_ tensor: Tensor) {
    self.init(
      images: tensor.shape[0], channels: tensor.shape[1], height: tensor.shape[2],
      width: tensor.shape[3], block: tensor.layout.block)
  }
}
