import KDSKernels

extension Tensor {
  /// RoIAlign (He et al. 2017) with the semantics of `torchvision.ops.roi_align`.
  ///
  /// - Shapes: self (N, C, H, W), any layout; rois (R, 5): image, x1, y1, x2, y2 in image pixels;
  ///   result (R, C, grid.height, grid.width), plain. No gradient goes to the regions.
  public func roiAlign(_ rois: Tensor, grid: RoIGrid) throws -> Tensor {
    if layout == .half { return try widened().roiAlign(rois, grid: grid) }
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
    if layout == .half { return try widened().roiPool(rois, grid: grid) }
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

  /// RoIAlign over the levels of a pyramid: every region reads the one map that `levelOf` names.
  ///
  /// - Shapes: levels (N, C, H_l, W_l), any layout; rois (R, 5); result (R, C, height, width), plain.
  /// - Parameters:
  ///   - grids: one per level, differing in their spatial scale alone.
  ///   - levelOf: (R) index of each region's level.
  public static func roiAlign(
    levels: [Tensor], _ rois: Tensor, grids: [RoIGrid], levelOf: [Int]
  ) throws -> Tensor {
    guard let first = levels.first, levels.count == grids.count, levelOf.count == rois.shape[0],
      levels.allSatisfy({ $0.rank == 4 && $0.shape[1] == first.shape[1] }),
      levelOf.allSatisfy({ levels.indices.contains($0) })
    else {
      throw KDSError.shape(
        "roi_align: levels \(levels.map(\.shape)), \(grids.count) grids and \(levelOf.count) level "
          + "numbers do not go together with rois \(rois.shape)")
    }
    if levels.count == 1 { return try first.roiAlign(rois, grid: grids[0]) }
    let levels = try levels.map { try $0.widened() }
    for (map, grid) in zip(levels, grids) { try map.checkRoIs("roi_align", rois, grid) }
    let parts = levels.indices.map { LevelRegions(rois, $0, levelOf) }
    let result = try Tensor(
      uninitialized: [rois.shape[0], first.shape[1], grids[0].height, grids[0].width])
    for (index, part) in parts.enumerated() {
      Kernels.roiAlignForward(
        levels[index].floats, map: MapGeometry(levels[index]), rois: part.rois, part.rows.count,
        grid: grids[index], output: result.floats, outputRows: part.rows)
    }
    let sources = levels.map { (shape: $0.shape, layout: $0.layout, map: MapGeometry($0)) }
    return Tape.record(result, "roi_align", levels) { gradient in
      try sources.enumerated().map { index, source in
        let back = try Tensor(uninitialized: source.shape, layout: source.layout)
        Kernels.roiAlignBackward(
          gradOutput: gradient.floats, map: source.map, rois: parts[index].rois,
          parts[index].rows.count, grid: grids[index], gradInput: back.floats,
          outputRows: parts[index].rows)
        return back
      }
    }
  }

  func checkRoIs(_ name: String, _ rois: Tensor, _ grid: RoIGrid) throws {
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

/// The regions of one level, and the rows of the result that they fill.
private struct LevelRegions {
  var rois: [Float] = []
  var rows: [Int32] = []

  init(_ all: Tensor, _ level: Int, _ levelOf: [Int]) {
    for (row, chosen) in levelOf.enumerated() where chosen == level {
      rows.append(Int32(row))
      rois += UnsafeBufferPointer(start: all.floats + 5 * row, count: 5)
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
