extension Kernels {
  /// The sigmoid of the highest channel of each place: what FRS (Du et al. 2021) calls feature
  /// richness.
  /// - Parameters:
  ///   - logits: the map, plain or blocked, with at least one channel.
  ///   - out: (images, height, width).
  public static func highestScore(
    _ logits: UnsafePointer<Float>, map: MapGeometry, _ out: UnsafeMutablePointer<Float>
  ) {
    let area = map.height * map.width
    // Pieces of places: every piece reads its part of each channel, and stays in the cache.
    let piece = 512
    let pieces = (area + piece - 1) / piece
    parallelFor(count: map.images * pieces, grain: 1) { range in
      for item in range {
        let (image, start) = (item / pieces, item % pieces * piece)
        let count = min(piece, area - start)
        let source = logits + image * map.groups * map.plane + start * map.block
        let best = out + image * area + start
        best.update(repeating: -.infinity, count: count)
        for group in 0..<map.groups {
          let present = min(map.block, map.channels - group * map.block)
          raise(best, source + group * map.plane, count, map.block, present)
        }
        for i in 0..<count { best[i] = fastSigmoid(best[i]) }
      }
    }
  }

  /// best = max(best, the `present` first channels of a block), place by place; a NaN is passed over.
  @inline(__always)
  private static func raise(
    _ best: UnsafeMutablePointer<Float>, _ plane: UnsafePointer<Float>, _ count: Int, _ block: Int,
    _ present: Int
  ) {
    if block == 1 {
      for i in 0..<count { best[i] = plane[i] > best[i] ? plane[i] : best[i] }
    } else if block == 16 && present == 16 {
      for i in 0..<count {
        let lanes = load16(plane + i &* 16)
        let half = lanes.lowHalf.replacing(
          with: lanes.highHalf, where: lanes.highHalf .> lanes.lowHalf)
        let quarter = half.lowHalf.replacing(
          with: half.highHalf, where: half.highHalf .> half.lowHalf)
        let (a, b) = (larger(quarter[0], quarter[1]), larger(quarter[2], quarter[3]))
        best[i] = larger(best[i], larger(a, b))
      }
    } else {
      for i in 0..<count {
        for lane in 0..<present { best[i] = larger(best[i], plane[i &* block &+ lane]) }
      }
    }
  }
}
