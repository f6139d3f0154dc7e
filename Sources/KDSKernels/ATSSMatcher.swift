#if canImport(Glibc)
  import Glibc
#endif

extension Kernels {
  /// Adaptive training sample selection (Zhang et al., CVPR 2020, algorithm 1) for one image.
  ///
  /// For every box g the candidates are, of each level, the `perLevel` anchors whose centres are nearest
  /// to the centre of g. With the mean m and the deviation v of their IoU with g (unbiased; 0 for a
  /// single candidate), a candidate is positive when
  ///
  ///     IoU >= m + v   and its centre lies inside g, by more than 0.01 pixels.
  ///
  /// An anchor that is positive for several boxes goes to the one with the largest IoU, the first of
  /// equals. Of anchors equally near, those with lower indices are candidates.
  /// - Parameters:
  ///   - boxes: (count, 4); anchors: (levels.last, 4), level after level.
  ///   - levels: where each level begins, and the end of the last.
  ///   - matches: one per anchor: index of the box, or `matchNegative`.
  public static func matchATSS(
    boxes: UnsafePointer<Float>, _ count: Int, anchors: UnsafePointer<Float>, levels: [Int],
    perLevel: Int, matches: UnsafeMutablePointer<Int32>
  ) {
    let total = levels.last ?? 0
    for anchor in 0..<total { matches[anchor] = matchNegative }
    if total == 0 || count <= 0 || perLevel <= 0 { return }
    var found = [[Candidate]](repeating: [], count: count)
    found.withUnsafeMutableBufferPointer { slots in
      let slots = slots.baseAddress!
      parallelFor(count: count, grain: max(1, 4096 / total)) { range in
        for box in range {
          slots[box] = positives(boxes + 4 * box, anchors, levels, perLevel)
        }
      }
    }
    // Box after box, so that the order of threads cannot matter.
    var best = [Float](repeating: -1, count: total)
    for (box, candidates) in found.enumerated() {
      for candidate in candidates where candidate.overlap > best[candidate.anchor] {
        best[candidate.anchor] = candidate.overlap
        matches[candidate.anchor] = Int32(truncatingIfNeeded: box)
      }
    }
  }

  private struct Candidate {
    var anchor: Int
    var overlap: Float
  }

  /// The anchors that are positive for one box, before other boxes are asked.
  private static func positives(
    _ box: UnsafePointer<Float>, _ anchors: UnsafePointer<Float>, _ levels: [Int], _ perLevel: Int
  ) -> [Candidate] {
    var candidates: [Candidate] = []
    for (first, end) in zip(levels, levels.dropFirst()) {
      for anchor in nearest(box, anchors, first..<end, perLevel) {
        candidates.append(Candidate(anchor: anchor, overlap: overlap(box, anchors + 4 * anchor)))
      }
    }
    let bar = threshold(candidates)
    return candidates.filter {
      $0.overlap >= bar && centreInside(anchors + 4 * $0.anchor, box, margin: 0.01)
    }
  }

  /// Mean and deviation of the overlaps, added.
  private static func threshold(_ candidates: [Candidate]) -> Float {
    let count = Double(candidates.count)
    let mean = candidates.reduce(0.0) { $0 + Double($1.overlap) } / max(1, count)
    let spread = candidates.reduce(0.0) {
      let gap = Double($1.overlap) - mean
      return $0 + gap * gap
    }
    return Float(mean + (count > 1 ? (spread / (count - 1)).squareRoot() : 0))
  }

  /// The `limit` anchors of a range with the nearest centres, nearest first.
  private static func nearest(
    _ box: UnsafePointer<Float>, _ anchors: UnsafePointer<Float>, _ range: Range<Int>, _ limit: Int
  ) -> [Int] {
    let (x, y) = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    let room = min(limit, range.count)
    if room == 0 { return [] }
    var (places, distances): ([Int], [Float]) = ([], [])
    places.reserveCapacity(room + 1)
    distances.reserveCapacity(room + 1)
    var worst = Float.infinity
    for anchor in range {
      let own = anchors + 4 * anchor
      let (dx, dy) = ((own[0] + own[2]) / 2 - x, (own[1] + own[3]) / 2 - y)
      let distance = dx * dx + dy * dy
      if places.count == room && !(distance < worst) { continue }
      var slot = places.count
      while slot > 0 && distances[slot - 1] > distance { slot -= 1 }
      places.insert(anchor, at: slot)
      distances.insert(distance, at: slot)
      if places.count > room {
        places.removeLast()
        distances.removeLast()
      }
      if places.count == room { worst = distances[room - 1] }
    }
    return places
  }

  private static func overlap(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>) -> Float {
    let width = larger(smaller(a[2], b[2]) - larger(a[0], b[0]), 0)
    let height = larger(smaller(a[3], b[3]) - larger(a[1], b[1]), 0)
    let inter = width * height
    let union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return union > 0 ? inter / union : 0
  }

  /// Whether an anchor's centre lies inside a box, by more than `margin` on every side.
  static func centreInside(
    _ anchor: UnsafePointer<Float>, _ box: UnsafePointer<Float>, margin: Float
  ) -> Bool {
    let (x, y) = ((anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2)
    return x - box[0] > margin && y - box[1] > margin && box[2] - x > margin && box[3] - y > margin
  }
}
