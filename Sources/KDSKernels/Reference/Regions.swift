extension Reference {
  /// RoIAlign from its definition: the mean of bilinear samples of each cell. Plain NCHW.
  public static func roiAlign(
    _ input: [Float], map: MapGeometry, rois: [Float], grid: RoIGrid
  ) -> [Float] {
    let count = rois.count / 5
    var out = [Double](repeating: 0, count: count * map.channels * grid.cells)
    forEachCorner(map: map, rois: rois, grid: grid) { image, roi, cell, place, weight in
      for channel in 0..<map.channels {
        let plane = (image * map.channels + channel) * map.height * map.width
        out[(roi * map.channels + channel) * grid.cells + cell] +=
          weight * Double(input[plane + place])
      }
    }
    return out.map(Float.init)
  }

  /// Gradient of `roiAlign` by its input.
  public static func roiAlignBackward(
    gradOutput: [Float], map: MapGeometry, rois: [Float], grid: RoIGrid
  ) -> [Float] {
    var out = [Double](
      repeating: 0, count: map.images * map.channels * map.height * map.width)
    forEachCorner(map: map, rois: rois, grid: grid) { image, roi, cell, place, weight in
      for channel in 0..<map.channels {
        let plane = (image * map.channels + channel) * map.height * map.width
        out[plane + place] +=
          weight * Double(gradOutput[(roi * map.channels + channel) * grid.cells + cell])
      }
    }
    return out.map(Float.init)
  }

  /// Calls `body(image, roi, cell, place, weight)` for the four corners of every sample.
  private static func forEachCorner(
    map: MapGeometry, rois: [Float], grid: RoIGrid,
    _ body: (_ image: Int, _ roi: Int, _ cell: Int, _ place: Int, _ weight: Double) -> Void
  ) {
    let offset: Float = grid.aligned ? 0.5 : 0
    for roi in 0..<rois.count / 5 {
      let r = rois[5 * roi..<5 * roi + 5].map { $0 }
      let (x, y) = (r[1] * grid.spatialScale - offset, r[2] * grid.spatialScale - offset)
      var width = r[3] * grid.spatialScale - offset - x
      var height = r[4] * grid.spatialScale - offset - y
      if !grid.aligned { (width, height) = (max(width, 1), max(height, 1)) }
      let (binX, binY) = (width / Float(grid.width), height / Float(grid.height))
      let across = grid.samplingRatio > 0 ? grid.samplingRatio : Int(binX.rounded(.up))
      let down = grid.samplingRatio > 0 ? grid.samplingRatio : Int(binY.rounded(.up))
      if across <= 0 || down <= 0 { continue }
      let share = 1 / Double(across * down)
      for cell in 0..<grid.cells {
        let (row, column) = (cell / grid.width, cell % grid.width)
        for sample in 0..<across * down {
          let (iy, ix) = (Float(sample / across), Float(sample % across))
          let sy = y + Float(row) * binY + (iy + 0.5) * binY / Float(down)
          let sx = x + Float(column) * binX + (ix + 0.5) * binX / Float(across)
          for (place, weight) in corners(sy, sx, map) {
            body(Int(r[0]), roi, cell, place, weight * share)
          }
        }
      }
    }
  }

  /// Bilinear corners of a point; none outside the map by more than a cell.
  private static func corners(
    _ y: Float, _ x: Float, _ map: MapGeometry
  ) -> [(place: Int, weight: Double)] {
    if y < -1 || y > Float(map.height) || x < -1 || x > Float(map.width) { return [] }
    func neighbours(_ v: Float, _ extent: Int) -> (Int, Int, Double) {
      let value = max(v, 0)
      let low = Int(value)
      if low >= extent - 1 { return (extent - 1, extent - 1, 0) }
      return (low, low + 1, Double(value) - Double(low))
    }
    let (top, bottom, fy) = neighbours(y, map.height)
    let (left, right, fx) = neighbours(x, map.width)
    return [
      (top * map.width + left, (1 - fy) * (1 - fx)), (top * map.width + right, (1 - fy) * fx),
      (bottom * map.width + left, fy * (1 - fx)), (bottom * map.width + right, fy * fx),
    ]
  }

  /// RoI max pooling from its definition. Plain NCHW; argmax is y * width + x or -1.
  public static func roiPool(
    _ input: [Float], map: MapGeometry, rois: [Float], grid: RoIGrid
  ) -> (output: [Float], argmax: [Int32]) {
    var output: [Float] = []
    var argmax: [Int32] = []
    for roi in 0..<rois.count / 5 {
      let corners = (1...4).map {
        Int((rois[5 * roi + $0] * grid.spatialScale).rounded(.toNearestOrAwayFromZero))
      }
      let stepX = Float(max(corners[2] - corners[0] + 1, 1)) / Float(grid.width)
      let stepY = Float(max(corners[3] - corners[1] + 1, 1)) / Float(grid.height)
      for channel in 0..<map.channels {
        let plane = (Int(rois[5 * roi]) * map.channels + channel) * map.height * map.width
        for row in 0..<grid.height {
          for column in 0..<grid.width {
            let top = Int((Float(row) * stepY).rounded(.down)) + corners[1]
            let bottom = Int((Float(row + 1) * stepY).rounded(.up)) + corners[1]
            let left = Int((Float(column) * stepX).rounded(.down)) + corners[0]
            let right = Int((Float(column + 1) * stepX).rounded(.up)) + corners[0]
            var best: (value: Float, place: Int32)?
            for y in top..<max(top, bottom) where y >= 0 && y < map.height {
              for x in left..<max(left, right) where x >= 0 && x < map.width {
                let value = input[plane + y * map.width + x]
                if best == nil || value > best!.value { best = (value, Int32(y * map.width + x)) }
              }
            }
            output.append(best?.value ?? 0)
            argmax.append(best?.place ?? -1)
          }
        }
      }
    }
    return (output, argmax)
  }
}
