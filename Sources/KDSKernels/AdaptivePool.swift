/// Cell `index` of `count` cells that cut `length` as PyTorch's adaptive pooling does: from the floor of
/// its lower edge to the ceiling of its upper edge, so that cells may share a row.
@inline(__always)
private func cell(_ index: Int, of count: Int, _ length: Int) -> Range<Int> {
  (index * length / count)..<(((index + 1) * length + count - 1) / count)
}

extension Kernels {
  /// Means over (outHeight, outWidth) cells of each plane.
  public static func adaptiveAverageForward(
    _ input: UnsafePointer<Float>, map: MapGeometry, outHeight: Int, outWidth: Int,
    output: UnsafeMutablePointer<Float>
  ) {
    let (block, width) = (map.block, map.width)
    let grain = max(1, elementwiseGrain / max(1, map.plane))
    parallelFor(count: map.images * map.groups, grain: grain) { range in
      for plane in range {
        let source = input + plane * map.plane
        for place in 0..<(outHeight * outWidth) {
          let rows = cell(place / outWidth, of: outHeight, map.height)
          let columns = cell(place % outWidth, of: outWidth, width)
          let target = output + (plane * outHeight * outWidth + place) * block
          let factor = 1 / Float(rows.count * columns.count)
          target.update(repeating: 0, count: block)
          for row in rows {
            for column in columns {
              let pixel = source + (row * width + column) * block
              for lane in 0..<block { target[lane] += pixel[lane] }
            }
          }
          for lane in 0..<block { target[lane] *= factor }
        }
      }
    }
  }

  /// Gradient of `adaptiveAverageForward`; `gradInput` is overwritten.
  public static func adaptiveAverageBackward(
    gradOutput: UnsafePointer<Float>, map: MapGeometry, outHeight: Int, outWidth: Int,
    gradInput: UnsafeMutablePointer<Float>
  ) {
    let (block, width) = (map.block, map.width)
    let grain = max(1, elementwiseGrain / max(1, map.plane))
    parallelFor(count: map.images * map.groups, grain: grain) { range in
      for plane in range {
        let target = gradInput + plane * map.plane
        target.update(repeating: 0, count: map.plane)
        for place in 0..<(outHeight * outWidth) {
          let rows = cell(place / outWidth, of: outHeight, map.height)
          let columns = cell(place % outWidth, of: outWidth, width)
          let source = gradOutput + (plane * outHeight * outWidth + place) * block
          let factor = 1 / Float(rows.count * columns.count)
          for row in rows {
            for column in columns {
              let pixel = target + (row * width + column) * block
              for lane in 0..<block { pixel[lane] += factor * source[lane] }
            }
          }
        }
      }
    }
  }
}
