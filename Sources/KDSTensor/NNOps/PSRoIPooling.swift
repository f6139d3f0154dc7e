import KDSKernels

extension Tensor {
  /// Position-sensitive RoI pooling (Dai et al. 2016) with the semantics of `torchvision.ops.ps_roi_pool`:
  /// every cell of the grid has map channels of its own.
  ///
  /// - Shapes: self (N, K · height · width, H, W), any layout; rois (R, 5): image, x1, y1, x2, y2 in image
  ///   pixels; result (R, K, height, width), plain. No gradient goes to the regions.
  public func psRoIPool(_ rois: Tensor, grid: RoIGrid) throws -> Tensor {
    let name = "ps_roi_pool"
    try checkRoIs(name, rois, grid)
    let cells = grid.height * grid.width
    guard shape[1] % cells == 0 else {
      throw KDSError.shape(
        "\(name): \(shape[1]) channels are not a multiple of \(grid.height)x\(grid.width) cells")
    }
    let source = try plain()
    let map = MapGeometry(source)
    let result = try Tensor(
      uninitialized: [rois.shape[0], shape[1] / cells, grid.height, grid.width])
    Kernels.psRoIPoolForward(
      source.floats, map: map, rois: rois.floats, rois.shape[0], grid: grid, output: result.floats)
    let (sourceShape, regions) = (source.shape, rois.detachedView())
    return Tape.record(result, name, [source]) { gradient in
      let back = try Tensor(uninitialized: sourceShape)
      Kernels.psRoIPoolBackward(
        gradOutput: gradient.floats, map: map, rois: regions.floats, regions.shape[0], grid: grid,
        gradInput: back.floats)
      return [back]
    }
  }
}
