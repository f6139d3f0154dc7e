/// The arrays of `PreparedRegions` as pointers, for the inner loops.
private struct Taps {
  let starts: UnsafePointer<Int32>
  let indices: UnsafePointer<Int32>
  let weights: UnsafePointer<Float>
}

extension AxisTaps {
  fileprivate func withTaps<T>(_ body: (Taps) -> T) -> T {
    starts.withUnsafeBufferPointer { starts in
      indices.withUnsafeBufferPointer { indices in
        weights.withUnsafeBufferPointer { weights in
          // An empty array may have no address; nothing is read then.
          let dummy = UnsafePointer<Int32>(starts.baseAddress!)
          return body(
            Taps(
              starts: dummy, indices: indices.baseAddress ?? dummy,
              weights: weights.baseAddress
                ?? UnsafeRawPointer(dummy).assumingMemoryBound(to: Float.self)))
        }
      }
    }
  }
}

extension Kernels {
  /// RoIAlign (He et al., "Mask R-CNN", 2017) with the semantics of `torchvision.ops.roi_align`.
  /// - Parameters:
  ///   - input: the map, plain or blocked.
  ///   - rois: (count, 5): image, x1, y1, x2, y2 in pixels of the image. A region with a non-finite
  ///     coordinate or an image outside the batch gives zeros.
  ///   - output: (rows, C, grid.height, grid.width), plain in either case.
  ///   - outputRows: (count) or nil; row of `output` that region i fills, so that the levels of a
  ///     pyramid write into one array. nil: row i.
  public static func roiAlignForward(
    _ input: UnsafePointer<Float>, map: MapGeometry, rois: UnsafePointer<Float>, _ count: Int,
    grid: RoIGrid, output: UnsafeMutablePointer<Float>, outputRows: UnsafePointer<Int32>? = nil
  ) {
    if count <= 0 || map.channels <= 0 { return }
    if map.block == 1 && map.channels >= 8 {
      // Blocked cells are read 16 channels at a time; one pass over the map pays for it.
      let blocked = map.with(block: 16)
      withScratch(blocked.size) { scratch in
        blockChannels(
          input, scratch, images: map.images, channels: map.channels, area: map.height * map.width,
          block: 16)
        roiAlignForward(
          scratch, map: blocked, rois: rois, count, grid: grid, output: output,
          outputRows: outputRows)
      }
      return
    }
    let regions = PreparedRegions(rois, count, grid: grid, map: map)
    regions.images.withUnsafeBufferPointer { images in
      regions.rows.withTaps { rows in
        regions.columns.withTaps { columns in
          parallelFor(count: count, grain: 1) { range in
            for index in range {
              let row = outputRows.map { Int($0[index]) } ?? index
              alignRegion(
                input, map, grid, Int(images[index]), index, rows, columns,
                output + row * map.channels * grid.cells)
            }
          }
        }
      }
    }
  }

  /// Gradient of `roiAlignForward` to the map, in the map's layout; overwrites `gradInput`.
  public static func roiAlignBackward(
    gradOutput: UnsafePointer<Float>, map: MapGeometry, rois: UnsafePointer<Float>, _ count: Int,
    grid: RoIGrid, gradInput: UnsafeMutablePointer<Float>,
    outputRows: UnsafePointer<Int32>? = nil
  ) {
    if map.block == 1 && map.channels >= 8 {
      let blocked = map.with(block: 16)
      withScratch(blocked.size) { scratch in
        roiAlignBackward(
          gradOutput: gradOutput, map: blocked, rois: rois, count, grid: grid, gradInput: scratch,
          outputRows: outputRows)
        unblockChannels(
          scratch, gradInput, images: map.images, channels: map.channels,
          area: map.height * map.width, block: 16)
      }
      return
    }
    let regions = PreparedRegions(rois, count, grid: grid, map: map)
    regions.images.withUnsafeBufferPointer { images in
      regions.rows.withTaps { rows in
        regions.columns.withTaps { columns in
          // One plane is written by one thread, region after region: no atomics, fixed order.
          parallelFor(count: map.images * map.groups, grain: 1) { range in
            for item in range {
              let (image, group) = (item / map.groups, item % map.groups)
              let plane = gradInput + item * map.plane
              plane.update(repeating: 0, count: map.plane)
              for index in 0..<count where Int(images[index]) == image {
                let row = outputRows.map { Int($0[index]) } ?? index
                let source = gradOutput + (row * map.channels + group * map.block) * grid.cells
                scatterRegion(source, map, grid, group, index, rows, columns, plane)
              }
            }
          }
        }
      }
    }
  }

  /// All channels of one region.
  private static func alignRegion(
    _ input: UnsafePointer<Float>, _ map: MapGeometry, _ grid: RoIGrid, _ image: Int,
    _ index: Int, _ rows: Taps, _ columns: Taps, _ output: UnsafeMutablePointer<Float>
  ) {
    if image < 0 {
      output.update(repeating: 0, count: map.channels * grid.cells)
      return
    }
    withUnsafeTemporaryAllocation(of: Float.self, capacity: grid.cells * map.block) { scratch in
      let cells = scratch.baseAddress!
      for group in 0..<map.groups {
        let plane = input + (image * map.groups + group) * map.plane
        switch map.block {
        case 16: gather(SIMD16<Float>.self, plane, map.width, grid, index, rows, columns, cells)
        case 8: gather(SIMD8<Float>.self, plane, map.width, grid, index, rows, columns, cells)
        default: gather(plane, map.width, grid, index, rows, columns, cells)
        }
        let present = min(map.block, map.channels - group * map.block)
        let target = output + group * map.block * grid.cells
        transpose(cells, target, grid.cells, from: map.block, lanes: present)
      }
    }
  }

  /// Adds one region's gradient to one channel block.
  private static func scatterRegion(
    _ source: UnsafePointer<Float>, _ map: MapGeometry, _ grid: RoIGrid, _ group: Int,
    _ index: Int, _ rows: Taps, _ columns: Taps, _ plane: UnsafeMutablePointer<Float>
  ) {
    let present = min(map.block, map.channels - group * map.block)
    withUnsafeTemporaryAllocation(of: Float.self, capacity: grid.cells * map.block) { scratch in
      let cells = scratch.baseAddress!
      if present < map.block { cells.update(repeating: 0, count: grid.cells * map.block) }
      for lane in 0..<present {
        let row = source + lane * grid.cells
        for cell in 0..<grid.cells { cells[cell &* map.block &+ lane] = row[cell] }
      }
      switch map.block {
      case 16: scatter(SIMD16<Float>.self, cells, map.width, grid, index, rows, columns, plane)
      case 8: scatter(SIMD8<Float>.self, cells, map.width, grid, index, rows, columns, plane)
      default: scatter(cells, map.width, grid, index, rows, columns, plane)
      }
    }
  }

  /// Cells (cells, block) of one region from one blocked plane.
  @inline(__always)
  private static func gather<V: ChannelLanes>(
    _: V.Type, _ plane: UnsafePointer<Float>, _ width: Int, _ grid: RoIGrid, _ index: Int,
    _ rows: Taps, _ columns: Taps, _ out: UnsafeMutablePointer<Float>
  ) {
    let lanes = V.scalarCount
    var target = UnsafeMutableRawPointer(out)
    for y in 0..<grid.height {
      let (firstRow, endRow) = span(rows, index * grid.height + y)
      for x in 0..<grid.width {
        let (firstColumn, endColumn) = span(columns, index * grid.width + x)
        var total = V(repeating: 0)
        for row in firstRow..<endRow {
          let line = plane + Int(rows.indices[row]) &* width &* lanes
          var part = V(repeating: 0)
          for column in firstColumn..<endColumn {
            let cell = UnsafeRawPointer(line + Int(columns.indices[column]) &* lanes)
            part = part.adding(cell.loadUnaligned(as: V.self), times: columns.weights[column])
          }
          total = total.adding(part, times: rows.weights[row])
        }
        target.storeBytes(of: total, as: V.self)
        target += MemoryLayout<V>.size
      }
    }
  }

  /// `gather` for a plain plane.
  private static func gather(
    _ plane: UnsafePointer<Float>, _ width: Int, _ grid: RoIGrid, _ index: Int,
    _ rows: Taps, _ columns: Taps, _ out: UnsafeMutablePointer<Float>
  ) {
    for y in 0..<grid.height {
      let (firstRow, endRow) = span(rows, index * grid.height + y)
      for x in 0..<grid.width {
        let (firstColumn, endColumn) = span(columns, index * grid.width + x)
        var total: Float = 0
        for row in firstRow..<endRow {
          let line = plane + Int(rows.indices[row]) &* width
          var part: Float = 0
          for column in firstColumn..<endColumn {
            part += line[Int(columns.indices[column])] * columns.weights[column]
          }
          total += part * rows.weights[row]
        }
        out[y * grid.width + x] = total
      }
    }
  }

  /// The transpose of `gather`: adds cells (cells, block) to a blocked plane.
  @inline(__always)
  private static func scatter<V: ChannelLanes>(
    _: V.Type, _ cells: UnsafePointer<Float>, _ width: Int, _ grid: RoIGrid, _ index: Int,
    _ rows: Taps, _ columns: Taps, _ plane: UnsafeMutablePointer<Float>
  ) {
    let lanes = V.scalarCount
    var source = UnsafeRawPointer(cells)
    for y in 0..<grid.height {
      let (firstRow, endRow) = span(rows, index * grid.height + y)
      for x in 0..<grid.width {
        let (firstColumn, endColumn) = span(columns, index * grid.width + x)
        let value = source.loadUnaligned(as: V.self)
        source += MemoryLayout<V>.size
        for row in firstRow..<endRow {
          let line = plane + Int(rows.indices[row]) &* width &* lanes
          let part = value.scaled(by: rows.weights[row])
          for column in firstColumn..<endColumn {
            let cell = UnsafeMutableRawPointer(line + Int(columns.indices[column]) &* lanes)
            let old = cell.loadUnaligned(as: V.self)
            cell.storeBytes(of: old.adding(part, times: columns.weights[column]), as: V.self)
          }
        }
      }
    }
  }

  /// `scatter` for a plain plane.
  private static func scatter(
    _ cells: UnsafePointer<Float>, _ width: Int, _ grid: RoIGrid, _ index: Int,
    _ rows: Taps, _ columns: Taps, _ plane: UnsafeMutablePointer<Float>
  ) {
    for y in 0..<grid.height {
      let (firstRow, endRow) = span(rows, index * grid.height + y)
      for x in 0..<grid.width {
        let (firstColumn, endColumn) = span(columns, index * grid.width + x)
        for row in firstRow..<endRow {
          let line = plane + Int(rows.indices[row]) &* width
          let part = cells[y * grid.width + x] * rows.weights[row]
          for column in firstColumn..<endColumn {
            line[Int(columns.indices[column])] += part * columns.weights[column]
          }
        }
      }
    }
  }
}

@inline(__always)
private func span(_ taps: Taps, _ cell: Int) -> (Int, Int) {
  (Int(taps.starts[cell]), Int(taps.starts[cell &+ 1]))
}

/// (cells, block) to (lanes, cells): the first `lanes` channels of each cell, channel by channel.
@inline(__always)
func transpose(
  _ cells: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int, from block: Int,
  lanes: Int
) {
  for lane in 0..<lanes {
    let row = out + lane * count
    for cell in 0..<count { row[cell] = cells[cell &* block &+ lane] }
  }
}
