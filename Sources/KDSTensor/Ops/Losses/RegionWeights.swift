import KDSKernels

extension Tensor {
  /// What each place of this map counts in the squared errors of crops: see `Kernels.regionWeights`.
  ///
  /// - Shapes: self (N, C, H, W); rois (R, 5): image, x1, y1, x2, y2 in pixels; result (N, 1, H, W),
  ///   zeros where no region is. It is off the tape.
  public func regionWeights(
    _ rois: Tensor, spatialScale: Float, normalize: Bool = true
  ) throws -> Tensor {
    let name = "region_weights"
    guard rank == 4, dtype == .float32, rois.rank == 2, rois.shape[1] == 5, rois.dtype == .float32
    else {
      throw KDSError.shape("\(name): map \(shape) must be (N, C, H, W), rois \(rois.shape) (R, 5)")
    }
    guard spatialScale > 0, spatialScale.isFinite else {
      throw KDSError.argument("\(name): spatial_scale must be positive, not \(spatialScale)")
    }
    for row in 0..<rois.shape[0] {
      let roi = rois.floats + 5 * row
      if !(roi[0] >= 0 && roi[0] < Float(shape[0])) {
        throw KDSError.argument("\(name): rois[\(row)] names image \(roi[0]) of \(shape[0])")
      }
      if !(1..<5).allSatisfy({ roi[$0].isFinite }) {
        throw KDSError.argument("\(name): rois[\(row)] is not a box of finite numbers")
      }
    }
    let result = try Tensor(uninitialized: [shape[0], 1, shape[2], shape[3]])
    Kernels.regionWeights(
      rois: rois.floats, rois.shape[0], spatialScale: spatialScale, normalize: normalize,
      images: shape[0], channels: shape[1], height: shape[2], width: shape[3],
      weights: result.floats)
    return result
  }
}

extension Tensor {
  /// The sigmoid of the highest channel of every place, FRS's feature richness (Du et al. 2021):
  /// (N, C, H, W) logits, any layout, give (N, 1, H, W), off the tape.
  public func highestScore() throws -> Tensor {
    if layout == .half { return try widened().highestScore() }
    guard rank == 4, dtype == .float32, shape[1] > 0 else {
      throw KDSError.shape("highest_score: logits \(shape) must be (N, C, H, W) with channels")
    }
    let result = try Tensor(uninitialized: [shape[0], 1, shape[2], shape[3]])
    Kernels.highestScore(floats, map: MapGeometry(self), result.floats)
    return result
  }
}
