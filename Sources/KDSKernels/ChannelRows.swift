/// Pixels that one piece of work moves: their rows stay in cache while the channels go by.
private let pixelTile = 64

extension Kernels {
  /// A map, plain or blocked, as matrices (images · height · width, channels / groups), one per group.
  public static func channelRows(
    _ source: UnsafePointer<Float>, _ map: MapGeometry, groups: Int = 1,
    _ rows: UnsafeMutablePointer<Float>
  ) {
    let (block, perGroup, total) = (
      map.block, map.channels / groups, map.images * map.height * map.width
    )
    eachPixelTile(map) { image, pixels in
      for part in 0..<map.groups {
        let from = source + (image * map.groups + part) * map.plane
        for lane in 0..<min(block, map.channels - part * block) {
          let channel = part * block + lane
          let first = image * map.height * map.width
          let to = rows + (channel / perGroup * total + first) * perGroup + channel % perGroup
          for pixel in pixels { to[pixel &* perGroup] = from[pixel &* block &+ lane] }
        }
      }
    }
  }

  /// The way back, adding `bias` (channels); missing channels of the last block become zero.
  public static func mapOfChannelRows(
    _ rows: UnsafePointer<Float>, _ map: MapGeometry, groups: Int = 1,
    bias: UnsafePointer<Float>? = nil, _ out: UnsafeMutablePointer<Float>
  ) {
    let (block, perGroup, total) = (
      map.block, map.channels / groups, map.images * map.height * map.width
    )
    eachPixelTile(map) { image, pixels in
      for part in 0..<map.groups {
        let to = out + (image * map.groups + part) * map.plane
        for lane in 0..<block {
          let channel = part * block + lane
          if channel >= map.channels {
            for pixel in pixels { to[pixel &* block &+ lane] = 0 }
            continue
          }
          let first = image * map.height * map.width
          let from = rows + (channel / perGroup * total + first) * perGroup + channel % perGroup
          let shift = bias?[channel] ?? 0
          for pixel in pixels { to[pixel &* block &+ lane] = from[pixel &* perGroup] + shift }
        }
      }
    }
  }

  private static func eachPixelTile(_ map: MapGeometry, _ body: (Int, Range<Int>) -> Void) {
    let area = map.height * map.width
    let tiles = (area + pixelTile - 1) / pixelTile
    parallelFor(count: map.images * tiles, grain: 4) { range in
      for index in range {
        let first = index % tiles * pixelTile
        body(index / tiles, first..<min(first + pixelTile, area))
      }
    }
  }
}
