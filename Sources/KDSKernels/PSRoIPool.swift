/// Where the cells of one region read along one axis: `starts[i]..<ends[i]`, possibly empty.
private struct CellRanges {
  /// Start and end of every cell, one after the other.
  var bounds: [Int32] = []

  /// Adds the cells of a region; `nil` corners give cells that read nothing.
  mutating func append(_ corners: (low: Float, high: Float)?, scale: Float, cells: Int, extent: Int)
  {
    guard let corners else {
      for _ in 0..<2 * cells { bounds.append(0) }
      return
    }
    let low = place(corners.low, scale)
    let length = max(place(corners.high, scale) - low, 1)
    let step = Float(length) / Float(cells)
    for cell in 0..<cells {
      // The last row and column are never read: torchvision's bound.
      let first = Int((Float(cell) * step).rounded(.down)) + low
      let end = Int((Float(cell + 1) * step).rounded(.up)) + low
      bounds.append(Int32(min(max(first, 0), extent - 1)))
      bounds.append(Int32(min(max(end, 0), extent - 1)))
    }
  }

  private func place(_ value: Float, _ scale: Float) -> Int {
    Int((value * scale).rounded(.toNearestOrAwayFromZero))
  }
}

/// Windows of the cells of all regions.
private struct Windows {
  var images: [Int32] = []
  var rows = CellRanges()
  var columns = CellRanges()

  init(_ rois: UnsafePointer<Float>, _ count: Int, grid: RoIGrid, map: MapGeometry) {
    for index in 0..<count {
      let roi = rois + 5 * index
      let image = regionImage(roi, map.images)
      images.append(image)
      let readable =
        image >= 0 && map.height > 0 && map.width > 0
        && (1..<5).allSatisfy { abs(roi[$0] * grid.spatialScale) <= 1e8 }
      rows.append(
        readable ? (roi[2], roi[4]) : nil, scale: grid.spatialScale, cells: grid.height,
        extent: map.height)
      columns.append(
        readable ? (roi[1], roi[3]) : nil, scale: grid.spatialScale, cells: grid.width,
        extent: map.width)
    }
  }
}

extension Kernels {
  /// Position-sensitive RoI pooling (Dai et al., "R-FCN", 2016) with the rounding of
  /// `torchvision.ops.ps_roi_pool`: cell (i, j) of output channel c is the mean over its window of map
  /// channel (c · height + i) · width + j, and 0 where the window is empty.
  ///
  /// - Parameters:
  ///   - input: a plain map whose channels are a multiple of `grid.cells`.
  ///   - rois: (count, 5): image, x1, y1, x2, y2 in pixels; unreadable regions give zeros.
  ///   - output: (count, C / cells, height, width).
  public static func psRoIPoolForward(
    _ input: UnsafePointer<Float>, map: MapGeometry, rois: UnsafePointer<Float>, _ count: Int,
    grid: RoIGrid, output: UnsafeMutablePointer<Float>
  ) {
    let windows = Windows(rois, count, grid: grid, map: map)
    let (cells, area) = (grid.cells, map.height * map.width)
    withBounds(windows) { images, rows, columns in
      parallelFor(count: count, grain: 1) { range in
        for index in range {
          let target = output + index * map.channels
          let base = input + max(Int(images[index]), 0) * map.channels * area
          for channel in 0..<map.channels {
            let cell = channel % cells
            let y = rows + 2 * (index * grid.height + cell / grid.width)
            let x = columns + 2 * (index * grid.width + cell % grid.width)
            target[channel] = mean(base + channel * area, map.width, y, x)
          }
        }
      }
    }
  }

  /// Gradient of `psRoIPoolForward` to the map; overwrites `gradInput`. It is the values' own:
  /// torchvision's also goes to the last row and column, which its values do not read.
  public static func psRoIPoolBackward(
    gradOutput: UnsafePointer<Float>, map: MapGeometry, rois: UnsafePointer<Float>, _ count: Int,
    grid: RoIGrid, gradInput: UnsafeMutablePointer<Float>
  ) {
    let windows = Windows(rois, count, grid: grid, map: map)
    let (cells, area) = (grid.cells, map.height * map.width)
    withBounds(windows) { images, rows, columns in
      parallelFor(count: map.images * map.channels, grain: 1) { range in
        for item in range {
          let (image, channel) = (item / map.channels, item % map.channels)
          let plane = gradInput + item * area
          plane.update(repeating: 0, count: area)
          let (row, column) = (channel % cells / grid.width, channel % cells % grid.width)
          for index in 0..<count where Int(images[index]) == image {
            let y = rows + 2 * (index * grid.height + row)
            let x = columns + 2 * (index * grid.width + column)
            spread(gradOutput[index * map.channels + channel], plane, map.width, y, x)
          }
        }
      }
    }
  }

  private static func mean(
    _ plane: UnsafePointer<Float>, _ width: Int, _ y: UnsafePointer<Int32>,
    _ x: UnsafePointer<Int32>
  ) -> Float {
    let (top, bottom, left, right) = (Int(y[0]), Int(y[1]), Int(x[0]), Int(x[1]))
    if bottom <= top || right <= left { return 0 }
    var sum: Float = 0
    for row in top..<bottom {
      let line = plane + row * width
      for column in left..<right { sum += line[column] }
    }
    return sum / Float((bottom - top) * (right - left))
  }

  private static func spread(
    _ gradient: Float, _ plane: UnsafeMutablePointer<Float>, _ width: Int,
    _ y: UnsafePointer<Int32>, _ x: UnsafePointer<Int32>
  ) {
    let (top, bottom, left, right) = (Int(y[0]), Int(y[1]), Int(x[0]), Int(x[1]))
    if bottom <= top || right <= left { return }
    let share = gradient / Float((bottom - top) * (right - left))
    for row in top..<bottom {
      let line = plane + row * width
      for column in left..<right { line[column] += share }
    }
  }

  private static func withBounds(
    _ windows: Windows,
    _ body: (UnsafePointer<Int32>, UnsafePointer<Int32>, UnsafePointer<Int32>) -> Void
  ) {
    if windows.images.isEmpty {
      // No region: the backward pass still has to clear its result.
      var nothing: Int32 = -1
      return body(&nothing, &nothing, &nothing)
    }
    windows.images.withUnsafeBufferPointer { images in
      windows.rows.bounds.withUnsafeBufferPointer { rows in
        windows.columns.bounds.withUnsafeBufferPointer { columns in
          body(images.baseAddress!, rows.baseAddress!, columns.baseAddress!)
        }
      }
    }
  }
}
