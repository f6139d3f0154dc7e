// Maps as rows of tokens: (N, H, W, C), where all channels of a pixel lie together.

extension Kernels {
  /// (N, C, H, W), plain or blocked, to (N, H, W, C).
  public static func channelsLast(
    _ source: UnsafePointer<Float>, _ map: MapGeometry, _ out: UnsafeMutablePointer<Float>
  ) {
    let (channels, width, block) = (map.channels, map.width, map.block)
    parallelFor(
      count: map.images * map.height, grain: max(1, elementGrain / max(1, width * channels))
    ) { range in
      for line in range {
        let (image, row) = (line / map.height, line % map.height)
        let target = out + line * width * channels
        for group in 0..<map.groups {
          let first = group * block
          let present = min(block, channels - first)
          let from = source + (image * map.groups + group) * map.plane + row * width * block
          for x in 0..<width {
            let (pixel, to) = (from + x &* block, target + (x &* channels &+ first))
            for lane in 0..<present { to[lane] = pixel[lane] }
          }
        }
      }
    }
  }

  /// The way back: (N, H, W, C) to (N, C, H, W), plain or blocked; missing channels become zero.
  public static func channelsFirst(
    _ source: UnsafePointer<Float>, _ map: MapGeometry, _ out: UnsafeMutablePointer<Float>
  ) {
    let (channels, width, block) = (map.channels, map.width, map.block)
    parallelFor(
      count: map.images * map.height, grain: max(1, elementGrain / max(1, width * channels))
    ) { range in
      for line in range {
        let (image, row) = (line / map.height, line % map.height)
        let from = source + line * width * channels
        for group in 0..<map.groups {
          let first = group * block
          let present = min(block, channels - first)
          let target = out + (image * map.groups + group) * map.plane + row * width * block
          for x in 0..<width {
            let (pixel, to) = (from + (x &* channels &+ first), target + x &* block)
            for lane in 0..<present { to[lane] = pixel[lane] }
            for lane in present..<block { to[lane] = 0 }
          }
        }
      }
    }
  }

  /// Four neighbours in one token: (N, H, W, C) to (N, ⌈H/2⌉, ⌈W/2⌉, 4C), with zeros behind odd sides.
  ///
  /// In the order of Liu et al.'s code: (0, 0), (1, 0), (0, 1), (1, 1) as (row, column).
  public static func mergePatches(
    _ source: UnsafePointer<Float>, images: Int, height: Int, width: Int, channels: Int,
    _ out: UnsafeMutablePointer<Float>
  ) {
    forEachPatch(images: images, height: height, width: width, channels: channels) { small, big in
      let target = out + small
      if big >= 0 {
        target.update(from: source + big, count: channels)
      } else {
        target.update(repeating: 0, count: channels)
      }
    }
  }

  /// The gradient of `mergePatches`, which is its way back.
  public static func splitPatches(
    _ source: UnsafePointer<Float>, images: Int, height: Int, width: Int, channels: Int,
    _ out: UnsafeMutablePointer<Float>
  ) {
    forEachPatch(images: images, height: height, width: width, channels: channels) { small, big in
      if big >= 0 { (out + big).update(from: source + small, count: channels) }
    }
  }

  /// Calls `body` with the position of each quarter of a merged token and where it comes from, -1 for
  /// outside of the map.
  @inline(__always)
  private static func forEachPatch(
    images: Int, height: Int, width: Int, channels: Int, _ body: (Int, Int) -> Void
  ) {
    let (rows, columns) = ((height + 1) / 2, (width + 1) / 2)
    parallelFor(
      count: images * rows, grain: max(1, elementGrain / max(1, 4 * columns * channels))
    ) { range in
      for line in range {
        let (image, row) = (line / rows, line % rows)
        for column in 0..<columns {
          for quarter in 0..<4 {
            let (y, x) = (2 * row + quarter % 2, 2 * column + quarter / 2)
            let inside = y < height && x < width
            body(
              ((line * columns + column) * 4 + quarter) * channels,
              inside ? ((image * height + y) * width + x) * channels : -1)
          }
        }
      }
    }
  }
}
