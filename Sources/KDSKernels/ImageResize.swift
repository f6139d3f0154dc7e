/// An 8-bit image in memory: rows of `width` pixels of three bytes, `rowStride` bytes apart.
public struct ImageSource {
  public let pixels: UnsafePointer<UInt8>
  public let height, width, rowStride: Int

  public init(pixels: UnsafePointer<UInt8>, height: Int, width: Int, rowStride: Int? = nil) {
    self.pixels = pixels
    self.height = height
    self.width = width
    self.rowStride = rowStride ?? 3 * width
  }
}

extension Kernels {
  /// Resizes an HWC byte image into one slot of a CHW float batch and normalises it:
  /// `(resized / 255 - mean) / deviation` in the top left outHeight x outWidth, zeros elsewhere.
  ///
  /// Bilinear with half-pixel centres and no antialiasing, as `torch.nn.functional.interpolate`.
  /// - Parameters:
  ///   - slot: (3, slotHeight, slotWidth); outHeight <= slotHeight, outWidth <= slotWidth.
  ///   - mean, deviation: per channel, in units of [0, 1] pixels.
  public static func resizeImage(
    _ image: ImageSource, outHeight: Int, outWidth: Int, slot: UnsafeMutablePointer<Float>,
    slotHeight: Int, slotWidth: Int, mean: SIMD3<Float>, deviation: SIMD3<Float>
  ) {
    if image.height <= 0 || image.width <= 0 || outHeight <= 0 || outWidth <= 0 {
      slot.update(repeating: 0, count: 3 * slotHeight * slotWidth)
      return
    }
    let rows = AxisSource.bilinear(from: image.height, to: outHeight)
    let columns = AxisSource.bilinear(from: image.width, to: outWidth)
    // One multiply and one add per value: x * factor + shift = (x / 255 - mean) / deviation.
    let factor = 1 / (255 * deviation)
    let shift = -mean / deviation
    let line = 3 * image.width
    parallelFor(count: slotHeight, grain: max(1, 8192 / max(slotWidth, 1))) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: line) { scratch in
        let blend = scratch.baseAddress!
        for y in range {
          let target = slot + y * slotWidth
          if y >= outHeight {
            clearRow(target, from: 0, slotHeight * slotWidth, slotWidth)
            continue
          }
          let upper = image.pixels + Int(rows.low[y]) * image.rowStride
          let lower = image.pixels + Int(rows.high[y]) * image.rowStride
          blendRows(upper, lower, rows.share[y], blend, line)
          normaliseRow(blend, columns, target, slotHeight * slotWidth, factor, shift)
          clearRow(target, from: outWidth, slotHeight * slotWidth, slotWidth)
        }
      }
    }
  }

  /// (1 - share) * upper + share * lower, bytes to floats.
  @inline(__always)
  private static func blendRows(
    _ upper: UnsafePointer<UInt8>, _ lower: UnsafePointer<UInt8>, _ share: Float,
    _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    let rest = 1 - share
    for i in 0..<count {
      out[i] = rest * Float(Int32(upper[i])) + share * Float(Int32(lower[i]))
    }
  }

  /// Horizontal interpolation of an interleaved row into three planes.
  @inline(__always)
  private static func normaliseRow(
    _ line: UnsafePointer<Float>, _ columns: AxisSource, _ out: UnsafeMutablePointer<Float>,
    _ plane: Int, _ factor: SIMD3<Float>, _ shift: SIMD3<Float>
  ) {
    columns.low.withUnsafeBufferPointer { low in
      columns.high.withUnsafeBufferPointer { high in
        columns.share.withUnsafeBufferPointer { share in
          for channel in 0..<3 {
            let target = out + channel * plane
            let source = line + channel
            let (scale, offset) = (factor[channel], shift[channel])
            for x in 0..<low.count {
              let a = source[3 &* Int(low[x])]
              let b = source[3 &* Int(high[x])]
              target[x] = (a + share[x] * (b - a)) * scale + offset
            }
          }
        }
      }
    }
  }

  /// Zeros from column `start` on, in the three planes.
  @inline(__always)
  private static func clearRow(
    _ row: UnsafeMutablePointer<Float>, from start: Int, _ plane: Int, _ width: Int
  ) {
    for channel in 0..<3 where start < width {
      (row + channel * plane + start).update(repeating: 0, count: width - start)
    }
  }
}
