/// bfloat16: the upper half of a float32. Maps lie as (N, H, W, C), so that all channels of a pixel are together.
public typealias Half = UInt16

@inline(__always)
func widen(_ value: Half) -> Float { Float(bitPattern: UInt32(value) &<< 16) }

/// Rounded to nearest, ties to even; NaN stays NaN.
@inline(__always)
func narrow(_ value: Float) -> Half {
  let bits = value.bitPattern
  let rounded = (bits &+ 0x7fff &+ ((bits &>> 16) & 1)) &>> 16
  return Half(truncatingIfNeeded: value != value ? 0x7fc0 : rounded)
}

extension Kernels {
  /// A float map, plain or blocked, to bfloat16 (N, H, W, C).
  public static func packHalf(
    _ source: UnsafePointer<Float>, _ map: MapGeometry, _ out: UnsafeMutablePointer<Half>
  ) {
    forEachPixelTile(map) { image, tile in
      let channels = map.channels
      let target = out + image * map.height * map.width * channels
      for group in 0..<map.groups {
        let (first, plane) = (group * map.block, source + (image * map.groups + group) * map.plane)
        let present = min(map.block, channels - first)
        if map.block == 1 {
          for pixel in tile { target[pixel &* channels &+ first] = narrow(plane[pixel]) }
        } else if present == 16 {
          for pixel in tile {
            let (from, to) = (plane + pixel &* 16, target + (pixel &* channels &+ first))
            for lane in 0..<16 { to[lane] = narrow(from[lane]) }
          }
        } else {
          for pixel in tile {
            let (from, to) = (plane + pixel &* map.block, target + (pixel &* channels &+ first))
            for lane in 0..<present { to[lane] = narrow(from[lane]) }
          }
        }
      }
    }
  }

  /// bfloat16 (N, H, W, C) to a float map, plain or blocked; the padding of the last block is zero.
  public static func unpackHalf(
    _ source: UnsafePointer<Half>, _ map: MapGeometry, _ out: UnsafeMutablePointer<Float>
  ) {
    forEachPixelTile(map) { image, tile in
      let channels = map.channels
      let from = source + image * map.height * map.width * channels
      for group in 0..<map.groups {
        let (first, plane) = (group * map.block, out + (image * map.groups + group) * map.plane)
        let present = min(map.block, channels - first)
        if map.block == 1 {
          for pixel in tile { plane[pixel] = widen(from[pixel &* channels &+ first]) }
        } else if present == 16 {
          for pixel in tile {
            let (read, to) = (from + (pixel &* channels &+ first), plane + pixel &* 16)
            for lane in 0..<16 { to[lane] = widen(read[lane]) }
          }
        } else {
          for pixel in tile {
            let (read, to) = (from + (pixel &* channels &+ first), plane + pixel &* map.block)
            for lane in 0..<map.block { to[lane] = lane < present ? widen(read[lane]) : 0 }
          }
        }
      }
    }
  }

  /// Calls `body` for runs of pixels that stay in cache while all channels pass.
  private static func forEachPixelTile(_ map: MapGeometry, _ body: (Int, Range<Int>) -> Void) {
    let (area, length) = (map.height * map.width, 64)
    let tiles = (area + length - 1) / length
    let grain = max(1, elementwiseGrain / max(1, length * map.channels))
    parallelFor(count: map.images * tiles, grain: grain) { range in
      for item in range {
        let first = item % tiles * length
        body(item / tiles, first..<min(first + length, area))
      }
    }
  }

  // MARK: - Elementwise

  /// float32 to bfloat16.
  public static func narrowed(
    _ source: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Half>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = narrow(source[index]) }
    }
  }

  /// bfloat16 to float32.
  public static func widened(
    _ source: UnsafePointer<Half>, _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = widen(source[index]) }
    }
  }

  /// out = a + b, or max(a + b, 0).
  public static func addHalf(
    _ a: UnsafePointer<Half>, _ b: UnsafePointer<Half>, _ out: UnsafeMutablePointer<Half>,
    _ count: Int, relu: Bool
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      if relu {
        for index in range {
          let sum = widen(a[index]) + widen(b[index])
          out[index] = narrow(sum < 0 ? 0 : sum)
        }
      } else {
        for index in range { out[index] = narrow(widen(a[index]) + widen(b[index])) }
      }
    }
  }

  /// out = max(a, 0)
  public static func reluHalf(
    _ a: UnsafePointer<Half>, _ out: UnsafeMutablePointer<Half>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = widen(a[index]) < 0 ? 0 : a[index] }
    }
  }

  /// out = gradient where output > 0, else 0.
  public static func reluBackwardHalf(
    output: UnsafePointer<Half>, gradient: UnsafePointer<Half>, _ out: UnsafeMutablePointer<Half>,
    _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = widen(output[index]) > 0 ? gradient[index] : 0 }
    }
  }

  /// out = a · scale[c] + shift[c], optionally max(·, 0), over `pixels` pixels.
  public static func channelAffineHalf(
    _ a: UnsafePointer<Half>, scale: UnsafePointer<Float>, shift: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Half>, pixels: Int, channels: Int, relu: Bool
  ) {
    let floor: Float = relu ? 0 : -.infinity
    parallelFor(count: pixels, grain: max(1, elementwiseGrain / max(1, channels))) { range in
      for pixel in range {
        let (from, to) = (a + pixel &* channels, out + pixel &* channels)
        for channel in 0..<channels {
          let value = widen(from[channel]) * scale[channel] + shift[channel]
          to[channel] = narrow(value < floor ? floor : value)
        }
      }
    }
  }

  // MARK: - Nearest resizing

  /// `nearestForward` on bfloat16 maps.
  public static func nearestForwardHalf(
    _ input: UnsafePointer<Half>, map: MapGeometry, outHeight: Int, outWidth: Int,
    output: UnsafeMutablePointer<Half>
  ) {
    let rows = AxisSource.nearest(from: map.height, to: outHeight)
    let columns = AxisSource.nearest(from: map.width, to: outWidth)
    let channels = map.channels
    parallelFor(count: map.images * outHeight, grain: 1) { range in
      for line in range {
        let (image, y) = (line / outHeight, line % outHeight)
        let source = input + (image * map.height + Int(rows[y])) * map.width * channels
        let target = output + line * outWidth * channels
        for x in 0..<outWidth {
          (target + x * channels).update(
            from: source + Int(columns[x]) * channels, count: channels)
        }
      }
    }
  }

  /// `nearestBackward` on bfloat16 maps; sums in float32.
  public static func nearestBackwardHalf(
    gradOutput: UnsafePointer<Half>, map: MapGeometry, outHeight: Int, outWidth: Int,
    gradInput: UnsafeMutablePointer<Half>
  ) {
    let rows = AxisSource.nearest(from: map.height, to: outHeight).map(Int.init)
    let columns = AxisSource.nearest(from: map.width, to: outWidth).map(Int.init)
    let (channels, line) = (map.channels, map.width * map.channels)
    parallelFor(count: map.images * map.height, grain: 1) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: max(1, line)) { scratch in
        let sums = scratch.baseAddress!
        for item in range {
          let (image, row) = (item / map.height, item % map.height)
          for index in 0..<line { sums[index] = 0 }
          for y in 0..<outHeight where rows[y] == row {
            let source = gradOutput + (image * outHeight + y) * outWidth * channels
            for x in 0..<outWidth {
              let (from, to) = (source + x * channels, sums + columns[x] * channels)
              for channel in 0..<channels { to[channel] += widen(from[channel]) }
            }
          }
          let target = gradInput + item * line
          for index in 0..<line { target[index] = narrow(sums[index]) }
        }
      }
    }
  }
}
