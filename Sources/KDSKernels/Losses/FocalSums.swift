/// Where `Kernels.focalSums` writes: P = (images, area), C = (images, channels).
public struct FocalSums {
  /// P, C: means of |x| over channels and over pixels.
  public var pixels, channels: UnsafeMutablePointer<Float>
  /// P: sum over c of weights[c] · x.
  public var logits: UnsafeMutablePointer<Float>
  /// C: sums of x over the pixels.
  public var totals: UnsafeMutablePointer<Float>

  public init(
    pixels: UnsafeMutablePointer<Float>, channels: UnsafeMutablePointer<Float>,
    logits: UnsafeMutablePointer<Float>, totals: UnsafeMutablePointer<Float>
  ) {
    (self.pixels, self.channels, self.logits, self.totals) = (pixels, channels, logits, totals)
  }
}

/// |x|, by the sign bit.
@inline(__always)
private func magnitude(_ x: SIMD16<Float>) -> SIMD16<Float> {
  unsafeBitCast(unsafeBitCast(x, to: SIMD16<UInt32>.self) & 0x7FFF_FFFF, to: SIMD16<Float>.self)
}

extension Kernels {
  /// All sums of a map that FGD's attention and context need, in one pass.
  public static func focalSums(
    _ x: UnsafePointer<Float>, weights: UnsafePointer<Float>, _ map: ChannelGeometry,
    _ out: FocalSums
  ) {
    let (tiles, row) = (map.tiles, map.blocks * map.block)
    let pieces = map.images * tiles
    // Per tile and channel: sums of |x|, then of x.
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * pieces * row + 1) { parts in
      let partial = parts.baseAddress!
      parallelFor(count: pieces, grain: 1) { range in
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * mapTileSize + 32) { buffer in
          for index in range {
            focalTile(
              x, weights, map, index, buffer.baseAddress!, partial + 2 * index * row, out)
          }
        }
      }
      for image in 0..<map.images {
        for channel in 0..<map.channels {
          var (sizes, total) = (0.0, 0.0)
          for tile in 0..<tiles {
            let place = 2 * (image * tiles + tile) * row + channel
            sizes += Double(partial[place])
            total += Double(partial[place + row])
          }
          out.channels[image * map.channels + channel] = Float(sizes / Double(max(1, map.area)))
          out.totals[image * map.channels + channel] = Float(total)
        }
      }
    }
  }

  /// One tile of pixels of one image; its sums over the channels wait lane by lane in `scratch`.
  private static func focalTile(
    _ x: UnsafePointer<Float>, _ weights: UnsafePointer<Float>, _ map: ChannelGeometry,
    _ index: Int, _ scratch: UnsafeMutablePointer<Float>, _ partial: UnsafeMutablePointer<Float>,
    _ out: FocalSums
  ) {
    let (image, first) = (index / map.tiles, index % map.tiles * map.tilePixels)
    let (block, row) = (map.block, map.blocks * map.block)
    let count = min(map.tilePixels, map.area - first) * block
    let (sizes, logits) = (scratch, scratch + mapTileSize + 16)
    let zero = SIMD16<Float>(repeating: 0)
    eachOfPlane(count) { i, _ in
      store16(zero, sizes + i)
      store16(zero, logits + i)
    }
    for part in 0..<map.blocks {
      let source = x + (image * map.blocks + part) * map.planeSize + first * block
      let factors = channelLanes(weights, map, plane: part, perImage: false)
      var (sizeLanes, lanes) = (zero, zero)
      eachOfPlane(count) { i, rest in
        let value = planeLanes(source, i, rest)
        let size = magnitude(value)
        store16(load16(sizes + i) + size, sizes + i)
        store16(load16(logits + i) + value * factors, logits + i)
        sizeLanes += size
        lanes += value
      }
      storeTail(sumByChannel(sizeLanes, block), partial + part * block, block)
      storeTail(sumByChannel(lanes, block), partial + row + part * block, block)
    }
    let (pixels, scores) = (out.pixels + image * map.area, out.logits + image * map.area)
    let factor = 1 / Float(max(1, map.channels))
    for pixel in 0..<count / block {
      var (size, score): (Float, Float) = (0, 0)
      if block == 16 {
        (size, score) = (load16(sizes + 16 * pixel).sum(), load16(logits + 16 * pixel).sum())
      } else {
        for lane in pixel * block..<(pixel + 1) * block {
          size += sizes[lane]
          score += logits[lane]
        }
      }
      pixels[first + pixel] = factor * size
      scores[first + pixel] = score
    }
  }
}

extension Kernels {
  /// FGD's attention of each row of (rows, columns): out = columns · softmax(x / temperature).
  public static func focalAttention(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, rows: Int, columns: Int,
    temperature: Float
  ) {
    if columns <= 0 { return }
    for row in 0..<rows {
      let target = out + row * columns
      let total = exponentials(x + row * columns, target, columns, scale: 1 / temperature).total
      let factor = Float(columns) / total
      for i in 0..<columns { target[i] *= factor }
    }
  }

  /// sum |a - b| over rows of attention; `slopes` gets scale · gradient by the x of a's softmax:
  /// a_i / temperature · (sign_i - sum_j sign_j a_j / columns), sign = sign(a - b).
  public static func attentionDistance(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, rows: Int, columns: Int,
    temperature: Float, scale: Float, slopes: UnsafeMutablePointer<Float>
  ) -> Double {
    var value = 0.0
    for row in 0..<rows {
      let (own, other, out) = (a + row * columns, b + row * columns, slopes + row * columns)
      var inner = 0.0
      for i in 0..<columns {
        let d = own[i] - other[i]
        let sign: Float = d > 0 ? 1 : (d < 0 ? -1 : 0)
        value += Double(abs(d))
        inner += Double(sign * own[i])
        out[i] = sign
      }
      let mean = Float(inner / Double(max(1, columns)))
      for i in 0..<columns { out[i] = scale / temperature * own[i] * (out[i] - mean) }
    }
    return value
  }
}
