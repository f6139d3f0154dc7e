/// How FCOS shares out places to boxes.
public struct CenterRule {
  /// A place counts when it lies this many anchor sizes from the centre of the box, per axis; less.
  public var radius: Float
  /// The farthest side of the box must lie between these multiples of the anchor's size, exclusive; the
  /// first level has no lower limit, the last no upper one.
  public var near: Float
  public var far: Float

  public init(radius: Float, near: Float = 4, far: Float = 8) {
    (self.radius, self.near, self.far) = (radius, near, far)
  }
}

extension Kernels {
  /// Centre sampling (Tian et al. 2019 and 2020; torchvision's `FCOS.compute_loss`) for one image.
  ///
  /// An anchor is a place (its centre) with a size (its width). It is positive for the boxes that it
  /// lies inside of, whose centres are nearer than radius · size on both axes, and whose farthest side
  /// fits the level; of several the smallest takes it, the first of equals.
  /// - Parameters:
  ///   - boxes: (count, 4); anchors: (levels.last, 4), level after level.
  ///   - levels: where each level begins, and the end of the last.
  ///   - matches: one per anchor: index of the box, or `matchNegative`.
  public static func matchCenters(
    boxes: UnsafePointer<Float>, _ count: Int, anchors: UnsafePointer<Float>, levels: [Int],
    rule: CenterRule, matches: UnsafeMutablePointer<Int32>
  ) {
    let total = levels.last ?? 0
    if total == 0 { return }
    let (firstEnd, lastStart) = (levels[1], levels[levels.count - 2])
    parallelFor(count: total, grain: max(64, 16384 / max(1, count))) { range in
      for place in range {
        let size = anchors[4 * place + 2] - anchors[4 * place]
        let low = place < firstEnd ? 0 : rule.near * size
        let high = place >= lastStart ? Float.infinity : rule.far * size
        matches[place] = smallestBox(
          boxes, count, anchors + 4 * place, reach: rule.radius * size, low: low, high: high)
      }
    }
  }

  private static func smallestBox(
    _ boxes: UnsafePointer<Float>, _ count: Int, _ anchor: UnsafePointer<Float>, reach: Float,
    low: Float, high: Float
  ) -> Int32 {
    let (x, y) = ((anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2)
    var (best, area) = (matchNegative, Float.infinity)
    for index in 0..<count {
      let box = boxes + 4 * index
      let farX = (x - (box[0] + box[2]) / 2).magnitude
      let farY = (y - (box[1] + box[3]) / 2).magnitude
      guard farX < reach, farY < reach, centreInside(anchor, box, margin: 0) else { continue }
      let across = larger(x - box[0], box[2] - x)
      let along = larger(y - box[1], box[3] - y)
      let farthest = larger(across, along)
      let own = (box[2] - box[0]) * (box[3] - box[1])
      if farthest > low && farthest < high && own < area {
        (best, area) = (Int32(truncatingIfNeeded: index), own)
      }
    }
    return best
  }
}
