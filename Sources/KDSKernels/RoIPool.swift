#if canImport(Glibc)
  import Glibc
#endif

/// Where an output cell reads: rows and columns of the map, half open, possibly empty.
private struct Window {
  var top = 0
  var bottom = 0
  var left = 0
  var right = 0
}

extension Kernels {
  /// RoI max pooling (Girshick, "Fast R-CNN", 2015) with the rounding of `torchvision.ops.roi_pool`.
  ///
  /// Region corners are rounded to map cells (halves away from zero), the end cell belongs to the
  /// region, and an empty output cell is 0.
  /// - Parameters:
  ///   - input: the map, plain or blocked.
  ///   - rois: (count, 5): image, x1, y1, x2, y2 in pixels; unreadable regions give zeros, see
  ///     `roiAlignForward`.
  ///   - output: (rows, C, grid.height, grid.width), plain.
  ///   - argmax: same shape; y * W + x of the cell taken, -1 for an empty output cell.
  ///   - outputRows: (count) or nil; row of `output` and `argmax` that region i fills.
  public static func roiPoolForward(
    _ input: UnsafePointer<Float>, map: MapGeometry, rois: UnsafePointer<Float>, _ count: Int,
    grid: RoIGrid, output: UnsafeMutablePointer<Float>, argmax: UnsafeMutablePointer<Int32>,
    outputRows: UnsafePointer<Int32>? = nil
  ) {
    if map.block == 1 && map.channels >= 8 && count > 0 {
      let blocked = map.with(block: 16)
      withScratch(blocked.size) { scratch in
        blockChannels(
          input, scratch, images: map.images, channels: map.channels, area: map.height * map.width,
          block: 16)
        roiPoolForward(
          scratch, map: blocked, rois: rois, count, grid: grid, output: output, argmax: argmax,
          outputRows: outputRows)
      }
      return
    }
    parallelFor(count: count, grain: 1) { range in
      withUnsafeTemporaryAllocation(of: Window.self, capacity: grid.cells + 1) { scratch in
        let windows = scratch.baseAddress!
        for index in range {
          let roi = rois + 5 * index
          let row = outputRows.map { Int($0[index]) } ?? index
          let start = row * map.channels * grid.cells
          let image = Int(regionImage(roi, map.images))
          fillWindows(roi, readable: image >= 0, grid, map, windows)
          let base = input + max(image, 0) * map.groups * map.plane
          poolRegion(base, map, windows, grid.cells, output + start, argmax + start)
        }
      }
    }
  }

  /// Gradient of `roiPoolForward` to the map, in the map's layout; overwrites `gradInput`.
  public static func roiPoolBackward(
    gradOutput: UnsafePointer<Float>, argmax: UnsafePointer<Int32>, map: MapGeometry,
    rois: UnsafePointer<Float>, _ count: Int, grid: RoIGrid,
    gradInput: UnsafeMutablePointer<Float>, outputRows: UnsafePointer<Int32>? = nil
  ) {
    parallelFor(count: map.images * map.groups, grain: 1) { range in
      for item in range {
        let (image, group) = (item / map.groups, item % map.groups)
        let plane = gradInput + item * map.plane
        plane.update(repeating: 0, count: map.plane)
        let present = min(map.block, map.channels - group * map.block)
        for index in 0..<count where Int(regionImage(rois + 5 * index, map.images)) == image {
          let row = outputRows.map { Int($0[index]) } ?? index
          let start = (row * map.channels + group * map.block) * grid.cells
          for lane in 0..<present {
            let values = gradOutput + start + lane * grid.cells
            let places = argmax + start + lane * grid.cells
            let target = plane + lane
            for cell in 0..<grid.cells where places[cell] >= 0 {
              target[Int(places[cell]) &* map.block] += values[cell]
            }
          }
        }
      }
    }
  }

  /// Windows of all output cells of a region.
  private static func fillWindows(
    _ roi: UnsafePointer<Float>, readable: Bool, _ grid: RoIGrid, _ map: MapGeometry,
    _ windows: UnsafeMutablePointer<Window>
  ) {
    if !readable {
      windows.initialize(repeating: Window(), count: grid.cells)
      return
    }
    let x1 = (roi[1] * grid.spatialScale).rounded(.toNearestOrAwayFromZero)
    let y1 = (roi[2] * grid.spatialScale).rounded(.toNearestOrAwayFromZero)
    let x2 = (roi[3] * grid.spatialScale).rounded(.toNearestOrAwayFromZero)
    let y2 = (roi[4] * grid.spatialScale).rounded(.toNearestOrAwayFromZero)
    let stepX = max(x2 - x1 + 1, 1) / Float(grid.width)
    let stepY = max(y2 - y1 + 1, 1) / Float(grid.height)
    for y in 0..<grid.height {
      for x in 0..<grid.width {
        windows[y * grid.width + x] = Window(
          top: clamped((Float(y) * stepY).rounded(.down) + y1, map.height),
          bottom: clamped((Float(y + 1) * stepY).rounded(.up) + y1, map.height),
          left: clamped((Float(x) * stepX).rounded(.down) + x1, map.width),
          right: clamped((Float(x + 1) * stepX).rounded(.up) + x1, map.width))
      }
    }
  }

  private static func clamped(_ value: Float, _ limit: Int) -> Int {
    // `spatialScale` may make a coordinate infinite; the comparison comes before the conversion.
    value > 0 ? (value < Float(limit) ? Int(value) : limit) : 0
  }

  /// All channels of one region.
  private static func poolRegion(
    _ image: UnsafePointer<Float>, _ map: MapGeometry, _ windows: UnsafePointer<Window>,
    _ cells: Int, _ output: UnsafeMutablePointer<Float>, _ argmax: UnsafeMutablePointer<Int32>
  ) {
    let block = map.block
    for group in 0..<map.groups {
      let plane = image + group * map.plane
      let values = output + group * block * cells
      let places = argmax + group * block * cells
      let present = min(block, map.channels - group * block)
      switch block {
      case 16:
        poolBlock(
          SIMD16<Float>.self, plane, map.width, windows, cells, values, places,
          present)
      case 8:
        poolBlock(
          SIMD8<Float>.self, plane, map.width, windows, cells, values, places,
          present)
      default:
        for lane in 0..<present {
          poolChannel(
            plane + lane, map.width, block, windows, cells, values + lane * cells,
            places + lane * cells)
        }
      }
    }
  }

  /// Maximum of each window in one channel block.
  @inline(__always)
  private static func poolBlock<V: ChannelLanes>(
    _: V.Type, _ plane: UnsafePointer<Float>, _ width: Int,
    _ windows: UnsafePointer<Window>, _ cells: Int, _ output: UnsafeMutablePointer<Float>,
    _ argmax: UnsafeMutablePointer<Int32>, _ present: Int
  ) {
    let lanes = V.scalarCount
    for cell in 0..<cells {
      let window = windows[cell]
      var best = V(repeating: -Float.greatestFiniteMagnitude)
      var place = V.Places(repeating: -1)
      if window.bottom <= window.top || window.right <= window.left { best = V(repeating: 0) }
      for y in window.top..<max(window.top, window.bottom) {
        var index = y &* width &+ window.left
        for _ in window.left..<max(window.left, window.right) {
          let value = UnsafeRawPointer(plane + index &* lanes).loadUnaligned(as: V.self)
          best.raise(to: value, at: Int32(truncatingIfNeeded: index), &place)
          index &+= 1
        }
      }
      // Through memory: indexing a vector by a variable spills it for every lane.
      withUnsafeBytes(of: &best) { values in
        withUnsafeBytes(of: &place) { places in
          let values = values.assumingMemoryBound(to: Float.self).baseAddress!
          let places = places.assumingMemoryBound(to: Int32.self).baseAddress!
          for lane in 0..<present {
            output[lane &* cells &+ cell] = values[lane]
            argmax[lane &* cells &+ cell] = places[lane]
          }
        }
      }
    }
  }

  /// Maximum of each window in one channel, whose cells are `block` floats apart.
  private static func poolChannel(
    _ plane: UnsafePointer<Float>, _ width: Int, _ block: Int, _ windows: UnsafePointer<Window>,
    _ cells: Int, _ output: UnsafeMutablePointer<Float>, _ argmax: UnsafeMutablePointer<Int32>
  ) {
    for cell in 0..<cells {
      let window = windows[cell]
      if window.bottom <= window.top || window.right <= window.left {
        output[cell] = 0
        argmax[cell] = -1
        continue
      }
      var best = -Float.greatestFiniteMagnitude
      var place = -1
      for y in window.top..<window.bottom {
        var index = y &* width &+ window.left
        var pointer = plane + index &* block
        for _ in window.left..<window.right {
          if pointer.pointee > best {
            best = pointer.pointee
            place = index
          }
          index &+= 1
          pointer += block
        }
      }
      output[cell] = best
      argmax[cell] = Int32(truncatingIfNeeded: place)
    }
  }
}
