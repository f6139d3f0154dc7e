extension Reference {
  /// Position-sensitive RoI pooling from its definition: cell (i, j) of channel c is the mean over its
  /// window of map channel (c · height + i) · width + j. Plain NCHW.
  public static func psRoIPool(
    _ input: [Float], map: MapGeometry, rois: [Float], grid: RoIGrid
  ) -> [Float] {
    var out = [Double](repeating: 0, count: rois.count / 5 * map.channels)
    forEachVote(map: map, rois: rois, grid: grid) { place, cell, weight in
      out[cell] += weight * Double(input[place])
    }
    return out.map(Float.init)
  }

  /// Gradient of `psRoIPool` by its input.
  public static func psRoIPoolBackward(
    gradOutput: [Float], map: MapGeometry, rois: [Float], grid: RoIGrid
  ) -> [Float] {
    var out = [Double](
      repeating: 0, count: map.images * map.channels * map.height * map.width)
    forEachVote(map: map, rois: rois, grid: grid) { place, cell, weight in
      out[place] += weight * Double(gradOutput[cell])
    }
    return out.map(Float.init)
  }

  /// Calls `body(place in the input, place in the output, weight)` for every pixel of every window.
  private static func forEachVote(
    map: MapGeometry, rois: [Float], grid: RoIGrid,
    _ body: (_ place: Int, _ cell: Int, _ weight: Double) -> Void
  ) {
    for roi in 0..<rois.count / 5 {
      let corners = (1...4).map {
        (rois[5 * roi + $0] * grid.spatialScale).rounded(.toNearestOrAwayFromZero)
      }
      let width = max(corners[2] - corners[0], 1) / Float(grid.width)
      let height = max(corners[3] - corners[1], 1) / Float(grid.height)
      for channel in 0..<map.channels {
        let (i, j) = (channel % grid.cells / grid.width, channel % grid.width)
        let plane = (Int(rois[5 * roi]) * map.channels + channel) * map.height * map.width
        // The last row and column are never read, as in torchvision.
        let rows = (0..<map.height - 1).filter {
          Float($0) >= (Float(i) * height).rounded(.down) + corners[1]
            && Float($0) < (Float(i + 1) * height).rounded(.up) + corners[1]
        }
        let columns = (0..<map.width - 1).filter {
          Float($0) >= (Float(j) * width).rounded(.down) + corners[0]
            && Float($0) < (Float(j + 1) * width).rounded(.up) + corners[0]
        }
        for row in rows {
          for column in columns {
            body(
              plane + row * map.width + column, roi * map.channels + channel,
              1 / Double(rows.count * columns.count))
          }
        }
      }
    }
  }
}
