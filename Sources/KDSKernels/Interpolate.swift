/// Where each output position of one axis reads its input: two neighbours and the second's share.
struct AxisSource {
  let low: [Int32]
  let high: [Int32]
  let share: [Float]

  /// Half-pixel centres (`align_corners=False` of `torch.nn.functional.interpolate`, size given).
  static func bilinear(from input: Int, to output: Int) -> AxisSource {
    let scale = Float(input) / Float(output)
    var (low, high, share): ([Int32], [Int32], [Float]) = ([], [], [])
    for position in 0..<output {
      let centre = scale * (Float(position) + 0.5) - 0.5
      let source = centre > 0 ? centre : 0
      let first = min(Int(source), input - 1)
      low.append(Int32(first))
      high.append(Int32(min(first + 1, input - 1)))
      share.append(source - Float(first))
    }
    return AxisSource(low: low, high: high, share: share)
  }

  /// floor(position * input / output), as `mode="nearest"`.
  static func nearest(from input: Int, to output: Int) -> [Int32] {
    let scale = Float(input) / Float(output)
    return (0..<output).map { Int32(min(Int(Float($0) * scale), input - 1)) }
  }
}

extension Kernels {
  /// Nearest-neighbour resize of a map to (outHeight, outWidth), plain or blocked;
  /// `torch.nn.functional.interpolate(mode="nearest")` with the size given.
  public static func nearestForward(
    _ input: UnsafePointer<Float>, map: MapGeometry, outHeight: Int, outWidth: Int,
    output: UnsafeMutablePointer<Float>
  ) {
    if map.size == 0 || outHeight <= 0 || outWidth <= 0 { return }
    let rows = AxisSource.nearest(from: map.height, to: outHeight)
    let columns = AxisSource.nearest(from: map.width, to: outWidth)
    let line = outWidth * map.block
    columns.withUnsafeBufferPointer { places in
      let places = places.baseAddress!
      forEachLine(map, outHeight, line) { plane, y in
        let source = input + (plane * map.height + Int(rows[y])) * map.width * map.block
        let target = output + (plane * outHeight + y) * line
        if map.block == 1 {
          for x in 0..<outWidth { target[x] = source[Int(places[x])] }
        } else {
          for x in 0..<outWidth {
            copyLanes(source + Int(places[x]) &* map.block, target + x &* map.block, map.block)
          }
        }
      }
    }
  }

  /// Gradient of `nearestForward`; overwrites `gradInput`, in the map's layout.
  public static func nearestBackward(
    gradOutput: UnsafePointer<Float>, map: MapGeometry, outHeight: Int, outWidth: Int,
    gradInput: UnsafeMutablePointer<Float>
  ) {
    if map.size == 0 { return }
    if outHeight <= 0 || outWidth <= 0 {
      gradInput.update(repeating: 0, count: map.size)
      return
    }
    let rows = AxisSource.nearest(from: map.height, to: outHeight)
    let columns = AxisSource.nearest(from: map.width, to: outWidth)
    columns.withUnsafeBufferPointer { places in
      let places = places.baseAddress!
      forEachPlane(map, outHeight * outWidth) { plane in
        let target = gradInput + plane * map.plane
        target.update(repeating: 0, count: map.plane)
        for y in 0..<outHeight {
          let source = gradOutput + (plane * outHeight + y) * outWidth * map.block
          let row = target + Int(rows[y]) * map.width * map.block
          if map.block == 1 {
            for x in 0..<outWidth { row[Int(places[x])] += source[x] }
          } else {
            for x in 0..<outWidth {
              addLanes(
                source + x &* map.block, 1, row + Int(places[x]) &* map.block, map.block)
            }
          }
        }
      }
    }
  }

  /// Bilinear resize of a map to (outHeight, outWidth), plain or blocked; half-pixel centres
  /// (`interpolate(mode="bilinear", align_corners=False)` with the size given).
  public static func bilinearForward(
    _ input: UnsafePointer<Float>, map: MapGeometry, outHeight: Int, outWidth: Int,
    output: UnsafeMutablePointer<Float>
  ) {
    if map.size == 0 || outHeight <= 0 || outWidth <= 0 { return }
    let rows = AxisSource.bilinear(from: map.height, to: outHeight)
    let columns = AxisSource.bilinear(from: map.width, to: outWidth)
    let (inLine, outLine) = (map.width * map.block, outWidth * map.block)
    forEachLine(map, outHeight, outLine) { plane, y in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: inLine) { scratch in
        let blend = scratch.baseAddress!
        let upper = input + (plane * map.height + Int(rows.low[y])) * inLine
        let lower = input + (plane * map.height + Int(rows.high[y])) * inLine
        let share = rows.share[y]
        for i in 0..<inLine { blend[i] = (1 - share) * upper[i] + share * lower[i] }
        spread(blend, columns, output + (plane * outHeight + y) * outLine, map.block)
      }
    }
  }

  /// Gradient of `bilinearForward`; overwrites `gradInput`, in the map's layout.
  public static func bilinearBackward(
    gradOutput: UnsafePointer<Float>, map: MapGeometry, outHeight: Int, outWidth: Int,
    gradInput: UnsafeMutablePointer<Float>
  ) {
    if map.size == 0 { return }
    if outHeight <= 0 || outWidth <= 0 {
      gradInput.update(repeating: 0, count: map.size)
      return
    }
    let rows = AxisSource.bilinear(from: map.height, to: outHeight)
    let columns = AxisSource.bilinear(from: map.width, to: outWidth)
    let (inLine, outLine) = (map.width * map.block, outWidth * map.block)
    forEachPlane(map, outHeight * outWidth) { plane in
      let target = gradInput + plane * map.plane
      target.update(repeating: 0, count: map.plane)
      withUnsafeTemporaryAllocation(of: Float.self, capacity: inLine) { scratch in
        let line = scratch.baseAddress!
        for y in 0..<outHeight {
          line.update(repeating: 0, count: inLine)
          collect(gradOutput + (plane * outHeight + y) * outLine, columns, line, map.block)
          let (upper, lower) = (
            target + Int(rows.low[y]) * inLine, target + Int(rows.high[y]) * inLine
          )
          let share = rows.share[y]
          for i in 0..<inLine { upper[i] += (1 - share) * line[i] }
          for i in 0..<inLine { lower[i] += share * line[i] }
        }
      }
    }
  }

  /// One blended row to one output row.
  @inline(__always)
  private static func spread(
    _ line: UnsafePointer<Float>, _ columns: AxisSource, _ out: UnsafeMutablePointer<Float>,
    _ block: Int
  ) {
    columns.low.withUnsafeBufferPointer { low in
      columns.high.withUnsafeBufferPointer { high in
        columns.share.withUnsafeBufferPointer { share in
          if block == 1 {
            for x in 0..<low.count {
              out[x] = (1 - share[x]) * line[Int(low[x])] + share[x] * line[Int(high[x])]
            }
            return
          }
          for x in 0..<low.count {
            let (a, b) = (line + Int(low[x]) &* block, line + Int(high[x]) &* block)
            let (u, v) = (1 - share[x], share[x])
            let target = out + x &* block
            for lane in 0..<block { target[lane] = u * a[lane] + v * b[lane] }
          }
        }
      }
    }
  }

  /// The transpose of `spread`: one output row's gradient added to one input row.
  @inline(__always)
  private static func collect(
    _ gradient: UnsafePointer<Float>, _ columns: AxisSource, _ line: UnsafeMutablePointer<Float>,
    _ block: Int
  ) {
    columns.low.withUnsafeBufferPointer { low in
      columns.high.withUnsafeBufferPointer { high in
        columns.share.withUnsafeBufferPointer { share in
          if block == 1 {
            for x in 0..<low.count {
              line[Int(low[x])] += (1 - share[x]) * gradient[x]
              line[Int(high[x])] += share[x] * gradient[x]
            }
            return
          }
          for x in 0..<low.count {
            let source = gradient + x &* block
            addLanes(source, 1 - share[x], line + Int(low[x]) &* block, block)
            addLanes(source, share[x], line + Int(high[x]) &* block, block)
          }
        }
      }
    }
  }

  /// Runs `body(plane, row)` over all output rows of all planes.
  @inline(__always)
  private static func forEachLine(
    _ map: MapGeometry, _ outHeight: Int, _ line: Int, _ body: (Int, Int) -> Void
  ) {
    parallelFor(
      count: map.images * map.groups * outHeight, grain: max(1, elementGrain / 2 / max(line, 1))
    ) { range in
      for item in range { body(item / outHeight, item % outHeight) }
    }
  }

  /// Runs `body(plane)` over all planes; a plane is written by one thread.
  @inline(__always)
  private static func forEachPlane(
    _ map: MapGeometry, _ outArea: Int, _ body: (Int) -> Void
  ) {
    let work = max(1, max(outArea, map.height * map.width) * map.block)
    parallelFor(count: map.images * map.groups, grain: max(1, elementGrain / 2 / work)) { range in
      for plane in range { body(plane) }
    }
  }
}

@inline(__always)
private func copyLanes(
  _ source: UnsafePointer<Float>, _ target: UnsafeMutablePointer<Float>, _ block: Int
) {
  if block == 16 {
    store16(load16(source), target)
  } else {
    for lane in 0..<block { target[lane] = source[lane] }
  }
}

@inline(__always)
private func addLanes(
  _ source: UnsafePointer<Float>, _ weight: Float, _ target: UnsafeMutablePointer<Float>,
  _ block: Int
) {
  if block == 16 {
    store16(load16(target) + load16(source) * weight, target)
  } else {
    for lane in 0..<block { target[lane] += weight * source[lane] }
  }
}
