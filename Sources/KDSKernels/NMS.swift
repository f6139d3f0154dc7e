/// The boxes kept so far, in columns, and the test of a candidate against all of them.
///
/// Comparing a candidate with the kept boxes does the same comparisons as striking out the rest of
/// the list after each kept box, but it stops at the first hit and never writes.
private struct KeptBoxes {
  private let columns: BoxColumns
  private(set) var count = 0

  init(capacity: Int, scratch: UnsafeMutablePointer<Float>) {
    columns = BoxColumns(capacity: (capacity + 15) / 16 * 16, scratch: scratch)
  }

  mutating func append(_ box: UnsafePointer<Float>, extent: Float) {
    if count % 16 == 0 {
      for lane in count..<count + 16 { columns.setEmpty(lane) }
    }
    columns.set(count, box, extent: extent)
    count += 1
  }

  /// Whether the IoU of `box` with some kept box is above `threshold`.
  @inline(__always)
  func overlaps(_ box: UnsafePointer<Float>, threshold: Float, extent: Float) -> Bool {
    let (x1, y1, x2, y2) = (columns.x1, columns.y1, columns.x2, columns.y2)
    let area = columns.area
    let own = (box[2] - box[0] + extent) * (box[3] - box[1] + extent)
    let (u1, v1) = (SIMD16<Float>(repeating: box[0]), SIMD16<Float>(repeating: box[1]))
    let (u2, v2) = (SIMD16<Float>(repeating: box[2]), SIMD16<Float>(repeating: box[3]))
    let zero = SIMD16<Float>(repeating: 0)
    let limit = SIMD16<Float>(repeating: threshold)
    var start = 0
    while start < count {
      let end = min(start + 64, count)
      var hits = SIMD16<Int32>(repeating: 0)
      while start < end {
        let width = maximum(
          minimum(load16(x2 + start), u2) - maximum(load16(x1 + start), u1) + extent, zero)
        let height = maximum(
          minimum(load16(y2 + start), v2) - maximum(load16(y1 + start), v1) + extent, zero)
        let inter = width * height
        let ratio = inter / (load16(area + start) + own - inter)
        // A true lane of a mask is -1.
        hits |= unsafeBitCast(ratio .> limit, to: SIMD16<Int32>.self)
        start += 16
      }
      if hits.wrappedSum() != 0 { return true }
    }
    return false
  }
}

extension Kernels {
  /// Non-maximum suppression: indices of the boxes kept, by descending score.
  ///
  /// A box is kept unless its IoU with a kept box of higher score is strictly above `threshold`
  /// (`torchvision.ops.nms`). Of equal scores the lower index comes first. A box whose score is NaN
  /// is never kept.
  /// - Parameters:
  ///   - boxes: (n, 4) x1 y1 x2 y2.
  ///   - maxOutput: stop after so many boxes.
  ///   - legacy: areas with + 1 (py-faster-rcnn).
  public static func nms(
    boxes: UnsafePointer<Float>, scores: UnsafePointer<Float>, _ n: Int, threshold: Float,
    maxOutput: Int = .max, legacy: Bool = false
  ) -> [Int] {
    if n <= 0 || maxOutput <= 0 { return [] }
    return withUnsafeTemporaryAllocation(of: Int32.self, capacity: n) { order in
      let sorted = order.baseAddress!
      argsortDescending(scores, n, sorted)
      let count = scoredCount(scores, sorted, n)
      var kept: [Int] = []
      suppress(
        boxes: boxes, candidates: sorted, count, threshold: threshold, maxOutput: maxOutput,
        extent: legacy ? 1 : 0
      ) { kept.append(Int(sorted[$0])) }
      return kept
    }
  }

  /// Non-maximum suppression within each label independently (`torchvision.ops.batched_nms`):
  /// indices kept, by descending score over all labels. Rules of ties and NaN as in `nms`.
  public static func batchedNMS(
    boxes: UnsafePointer<Float>, scores: UnsafePointer<Float>, labels: UnsafePointer<Int64>,
    _ n: Int, threshold: Float, maxOutput: Int = .max, legacy: Bool = false
  ) -> [Int] {
    if n <= 0 || maxOutput <= 0 { return [] }
    return withUnsafeTemporaryAllocation(of: Int32.self, capacity: 2 * n) { scratch in
      let sorted = scratch.baseAddress!
      let grouped = sorted + n
      argsortDescending(scores, n, sorted)
      let count = scoredCount(scores, sorted, n)
      let groups = groupByLabel(sorted, count, labels, grouped)
      return withUnsafeTemporaryAllocation(of: Bool.self, capacity: n) { flags in
        let keep = flags.baseAddress!
        keep.initialize(repeating: false, count: n)
        parallelFor(count: groups.count - 1, grain: 1) { range in
          for group in range {
            let members = grouped + groups[group]
            suppress(
              boxes: boxes, candidates: members, groups[group + 1] - groups[group],
              threshold: threshold, maxOutput: maxOutput, extent: legacy ? 1 : 0
            ) { keep[Int(members[$0])] = true }
          }
        }
        var kept: [Int] = []
        for i in 0..<count where keep[Int(sorted[i])] {
          kept.append(Int(sorted[i]))
          if kept.count == maxOutput { break }
        }
        return kept
      }
    }
  }

  /// Number of leading entries of `order` whose score is not NaN (the sort put NaN last).
  private static func scoredCount(
    _ scores: UnsafePointer<Float>, _ order: UnsafePointer<Int32>, _ n: Int
  ) -> Int {
    var count = n
    while count > 0, scores[Int(order[count - 1])].isNaN { count -= 1 }
    return count
  }

  /// Greedy suppression over `candidates` (indices of boxes, best first); calls `keep` with the
  /// position of each one kept.
  @inline(__always)
  private static func suppress(
    boxes: UnsafePointer<Float>, candidates: UnsafePointer<Int32>, _ count: Int, threshold: Float,
    maxOutput: Int, extent: Float, keep: (Int) -> Void
  ) {
    let capacity = min(count, maxOutput)
    withUnsafeTemporaryAllocation(of: Float.self, capacity: BoxColumns.scratch(capacity) + 1) {
      var kept = KeptBoxes(capacity: capacity, scratch: $0.baseAddress!)
      for position in 0..<count {
        let box = boxes + 4 * Int(candidates[position])
        if kept.overlaps(box, threshold: threshold, extent: extent) { continue }
        kept.append(box, extent: extent)
        keep(position)
        if kept.count == capacity { break }
      }
    }
  }

  /// Copies `order` to `grouped` with equal labels together and the order within a label unchanged;
  /// returns where each group starts, and the end.
  private static func groupByLabel(
    _ order: UnsafePointer<Int32>, _ count: Int, _ labels: UnsafePointer<Int64>,
    _ grouped: UnsafeMutablePointer<Int32>
  ) -> [Int] {
    var groupOf: [Int64: Int] = [:]
    var sizes: [Int] = []
    var membership = [Int](repeating: 0, count: count)
    for i in 0..<count {
      let label = labels[Int(order[i])]
      if let known = groupOf[label] {
        membership[i] = known
      } else {
        groupOf[label] = sizes.count
        membership[i] = sizes.count
        sizes.append(0)
      }
      sizes[membership[i]] += 1
    }
    var starts = [0]
    for size in sizes { starts.append(starts[starts.count - 1] + size) }
    var next = starts
    for i in 0..<count {
      grouped[next[membership[i]]] = order[i]
      next[membership[i]] += 1
    }
    return starts
  }
}
