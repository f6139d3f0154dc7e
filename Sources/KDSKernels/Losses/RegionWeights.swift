/// Cells of a map that a region covers: rows top..<bottom, columns left..<right, never empty.
public struct MapCrop: Equatable {
  public let top, bottom, left, right: Int

  /// The region (x1, y1, x2, y2) times `scale`, floor of the lesser and ceil of the greater corner,
  /// clipped to the map, at least one cell of it.
  public init(_ box: UnsafePointer<Float>, scale: Float, height: Int, width: Int) {
    (left, right) = MapCrop.span(box[0] * scale, box[2] * scale, width)
    (top, bottom) = MapCrop.span(box[1] * scale, box[3] * scale, height)
  }

  public var cells: Int { (bottom - top) * (right - left) }

  private static func span(_ low: Float, _ high: Float, _ size: Int) -> (Int, Int) {
    let first = min(whole(low.rounded(.down), size), size - 1)
    return (first, max(first + 1, whole(high.rounded(.up), size)))
  }

  /// Brought to 0...limit before it becomes an integer; NaN gives 0.
  private static func whole(_ value: Float, _ limit: Int) -> Int {
    value > 0 ? (value < Float(limit) ? Int(value) : limit) : 0
  }
}

extension Kernels {
  /// What each cell of a map counts when squared errors over crops are summed: for every region i
  /// that covers it 1 / (2 R), divided by m_i = channels · height_i · width_i where `normalize`.
  ///
  /// With it Mimic's loss (Li et al. 2017, eq. 5), 1 / (2R) sum_i 1 / m_i ||u_i - v_i||², is one
  /// weighted squared error over the maps: no crop is ever copied, and overlaps add up.
  /// - Parameters:
  ///   - rois: (count, 5): image, x1, y1, x2, y2 in pixels; the image must exist.
  ///   - weights: (images, height, width), overwritten.
  public static func regionWeights(
    rois: UnsafePointer<Float>, _ count: Int, spatialScale: Float, normalize: Bool, images: Int,
    channels: Int, height: Int, width: Int, weights: UnsafeMutablePointer<Float>
  ) {
    if height <= 0 || width <= 0 { return }
    // Regions in order within every row: the sums do not depend on the number of threads.
    parallelFor(count: images * height, grain: max(1, elementGrain / max(1, width * 8))) { range in
      withUnsafeTemporaryAllocation(of: Double.self, capacity: width) { buffer in
        let sums = buffer.baseAddress!
        for line in range {
          let (image, y) = (line / height, line % height)
          sums.update(repeating: 0, count: width)
          for index in 0..<count where Int(rois[5 * index]) == image {
            let crop = MapCrop(
              rois + 5 * index + 1, scale: spatialScale, height: height, width: width)
            if y < crop.top || y >= crop.bottom { continue }
            let size = normalize ? Double(channels) * Double(crop.cells) : 1
            let share = 0.5 / (Double(count) * size)
            for x in crop.left..<crop.right { sums[x] += share }
          }
          let out = weights + line * width
          for x in 0..<width { out[x] = Float(sums[x]) }
        }
      }
    }
  }
}
