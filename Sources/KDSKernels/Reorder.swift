extension Kernels {
  /// (N, C, area) to (N, ceil(C/block), area, block); missing channels become zero.
  public static func blockChannels(
    _ source: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    images: Int, channels: Int, area: Int, block: Int
  ) {
    let blocks = (channels + block - 1) / block
    parallelFor(count: images * blocks, grain: max(1, elementwiseGrain / max(1, area * block))) {
      for index in $0 {
        let (image, group) = (index / blocks, index % blocks)
        let present = min(block, channels - group * block)
        let from = source + (image * channels + group * block) * area
        let to = out + index * area * block
        if present < block { to.update(repeating: 0, count: area * block) }
        // Tiles of pixels keep the strided side in cache.
        var first = 0
        while first < area {
          let last = min(first + 64, area)
          for lane in 0..<present {
            let row = from + lane * area
            for pixel in first..<last { to[pixel &* block &+ lane] = row[pixel] }
          }
          first = last
        }
      }
    }
  }

  /// The way back: (N, ceil(C/block), area, block) to (N, C, area); padding is dropped.
  public static func unblockChannels(
    _ source: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    images: Int, channels: Int, area: Int, block: Int
  ) {
    let blocks = (channels + block - 1) / block
    parallelFor(count: images * blocks, grain: max(1, elementwiseGrain / max(1, area * block))) {
      for index in $0 {
        let (image, group) = (index / blocks, index % blocks)
        let present = min(block, channels - group * block)
        let from = source + index * area * block
        let to = out + (image * channels + group * block) * area
        var first = 0
        while first < area {
          let last = min(first + 64, area)
          for lane in 0..<present {
            let row = to + lane * area
            for pixel in first..<last { row[pixel] = from[pixel &* block &+ lane] }
          }
          first = last
        }
      }
    }
  }
}
