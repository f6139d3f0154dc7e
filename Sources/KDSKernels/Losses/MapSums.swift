// Sums over the channels or over the pixels of a map, for attention maps.

/// Floats of one block of channels that a tile of pixels spans: its sums stay in the first cache.
let mapTileSize = 1024

extension ChannelGeometry {
  var tilePixels: Int { mapTileSize / block }
  var tiles: Int { (area + tilePixels - 1) / tilePixels }
}

/// Sums a tile over the channels: out[p] = factor · sum over c of `term(value, weights(block index))`.
///
/// Channels are added up lane by lane in `sums`, room for `mapTileSize` + 16 floats. Give closure
/// literals.
@inline(__always)
private func sumTile(
  _ image: UnsafePointer<Float>, _ map: ChannelGeometry, tile: Int, factor: Float,
  _ sums: UnsafeMutablePointer<Float>, _ out: UnsafeMutablePointer<Float>,
  weights: (Int) -> SIMD16<Float>, term: (SIMD16<Float>, SIMD16<Float>) -> SIMD16<Float>
) {
  let first = tile * map.tilePixels
  let pixels = min(map.tilePixels, map.area - first)
  let count = pixels * map.block
  let zero = SIMD16<Float>(repeating: 0)
  eachOfPlane(count) { i, _ in store16(zero, sums + i) }
  for part in 0..<map.blocks {
    let source = image + part * map.planeSize + first * map.block
    let factors = weights(part)
    eachOfPlane(count) { i, rest in
      store16(load16(sums + i) + term(planeLanes(source, i, rest), factors), sums + i)
    }
  }
  switch map.block {
  case 16: for p in 0..<pixels { out[first + p] = factor * load16(sums + 16 * p).sum() }
  case 8:
    for p in 0..<pixels {
      let pair = load16(sums + 8 * p)
      out[first + p] = factor * pair.lowHalf.sum()
    }
  default: for p in 0..<pixels { out[first + p] = factor * sums[p] }
  }
}

extension Kernels {
  /// out[n, p] = mean over c of x², the attention map of AT.
  public static func meanSquares(
    _ x: UnsafePointer<Float>, _ map: ChannelGeometry, _ out: UnsafeMutablePointer<Float>
  ) {
    let (tiles, factor) = (map.tiles, 1 / Float(max(1, map.channels)))
    parallelFor(count: map.images * tiles, grain: 1) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: mapTileSize + 16) { buffer in
        let sums = buffer.baseAddress!
        for index in range {
          let image = index / tiles
          sumTile(
            x + image * map.blocks * map.planeSize, map, tile: index % tiles, factor: factor, sums,
            out + image * map.area, weights: { _ in SIMD16(repeating: 1) },
            term: { x, _ in x * x })
        }
      }
    }
  }

  /// out[n, p] = sum over c of weights[n, c] · x, or of weights[c] · x without `perImage`.
  public static func channelProducts(
    _ x: UnsafePointer<Float>, weights: UnsafePointer<Float>, perImage: Bool,
    _ map: ChannelGeometry, _ out: UnsafeMutablePointer<Float>
  ) {
    let tiles = map.tiles
    parallelFor(count: map.images * tiles, grain: 1) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: mapTileSize + 16) { buffer in
        let sums = buffer.baseAddress!
        for index in range {
          let image = index / tiles
          sumTile(
            x + image * map.blocks * map.planeSize, map, tile: index % tiles, factor: 1, sums,
            out + image * map.area,
            weights: {
              channelLanes(weights, map, plane: image * map.blocks + $0, perImage: perImage)
            }, term: { $0 * $1 })
        }
      }
    }
  }

  /// out[n, c] = sum over p of weights[n, p] · x.
  public static func pixelProducts(
    _ x: UnsafePointer<Float>, weights: UnsafePointer<Float>, _ map: ChannelGeometry,
    _ out: UnsafeMutablePointer<Float>
  ) {
    let (size, block) = (map.planeSize, map.block)
    parallelFor(count: map.planes, grain: map.planeChunk) { range in
      for plane in range {
        let (source, values) = (x + plane * size, weights + plane / map.blocks * map.area)
        var total = SIMD16<Double>(repeating: 0)
        var start = 0
        while start < size {
          let end = min(start + 4096, size)
          var lanes = SIMD16<Float>(repeating: 0)
          eachOfPlane(end - start) { i, rest in
            lanes +=
              planeLanes(source, start + i, rest) * pixelLanes(values, start + i, rest, block)
          }
          total += SIMD16<Double>(lanes)
          start = end
        }
        storeChannels(total, map, plane, out)
      }
    }
  }

  /// out[n, c, p] = a[n, p] · u[n, c] + b[n, p] · v[c]; the channel padding becomes zero.
  public static func sumOfProducts(
    pixels a: UnsafePointer<Float>, channels u: UnsafePointer<Float>,
    pixels b: UnsafePointer<Float>, shared v: UnsafePointer<Float>, _ map: ChannelGeometry,
    _ out: UnsafeMutablePointer<Float>
  ) {
    parallelFor(count: map.planes, grain: map.planeChunk) { range in
      for plane in range {
        let image = plane / map.blocks
        let (first, second) = (a + image * map.area, b + image * map.area)
        let own = channelLanes(u, map, plane: plane)
        let shared = channelLanes(v, map, plane: plane, perImage: false)
        let target = out + plane * map.planeSize
        eachOfPlane(map.planeSize) { i, rest in
          let value =
            pixelLanes(first, i, rest, map.block) * own
            + pixelLanes(second, i, rest, map.block) * shared
          storePlane(value, target, i, rest)
        }
      }
    }
  }
}
