/// How anchors are assigned to ground-truth boxes.
public struct MatchRule {
  /// IoU at or above this is positive.
  public var high: Float
  /// IoU strictly below this is negative; between the two, the anchor is ignored.
  public var low: Float
  /// Anchors that have the highest IoU of some ground-truth box (ties included) are positive too.
  public var allowLowQuality: Bool
  /// A box whose best IoU is not above this gives no low-quality match. 0 leaves out boxes that no
  /// anchor touches; -1 is torchvision, where such a box makes *every* untouched anchor positive.
  public var lowQualityMinimum: Float
  /// Areas with + 1 (inclusive pixels, py-faster-rcnn).
  public var legacy: Bool

  public init(
    high: Float, low: Float, allowLowQuality: Bool = false, lowQualityMinimum: Float = 0,
    legacy: Bool = false
  ) {
    self.high = high
    self.low = low
    self.allowLowQuality = allowLowQuality
    self.lowQualityMinimum = lowQualityMinimum
    self.legacy = legacy
  }
}

/// Anchors per block: their columns (10 KB) and results stay in the first-level cache.
private let anchorBlock = 512

extension Kernels {
  /// `matches` value of an anchor that is negative.
  public static let matchNegative: Int32 = -1
  /// `matches` value of an anchor between the thresholds: to be ignored.
  public static let matchIgnored: Int32 = -2

  /// Assigns each anchor to a ground-truth box, without storing the (boxes, anchors) IoU matrix.
  ///
  /// Faster R-CNN's rule as in torchvision's `Matcher`; a low-quality match goes to the box with
  /// which the anchor overlaps most, which need not be the box that made it positive.
  /// - Parameters:
  ///   - boxes: (count, 4); with count = 0 every anchor is negative.
  ///   - anchors: (anchorCount, 4).
  ///   - matches: (anchorCount); index of the box, `matchNegative` or `matchIgnored`.
  ///   - overlaps: (anchorCount); best IoU, 0 for two boxes without area.
  ///   - nearest: (anchorCount) or nil; index of the best box whatever the thresholds say.
  public static func matchAnchors(
    boxes: UnsafePointer<Float>, _ count: Int, anchors: UnsafePointer<Float>, _ anchorCount: Int,
    rule: MatchRule, matches: UnsafeMutablePointer<Int32>, overlaps: UnsafeMutablePointer<Float>,
    nearest: UnsafeMutablePointer<Int32>? = nil
  ) {
    if anchorCount <= 0 { return }
    if count <= 0 {
      for i in 0..<anchorCount {
        matches[i] = matchNegative
        overlaps[i] = 0
        nearest?[i] = -1
      }
      return
    }
    let blocks = (anchorCount + anchorBlock - 1) / anchorBlock
    withUnsafeTemporaryAllocation(of: Float.self, capacity: (blocks + 1) * count) { scratch in
      let best = scratch.baseAddress!
      let blockBest = best + count
      let extent: Float = rule.legacy ? 1 : 0
      parallelFor(count: blocks, grain: max(1, 16 / count)) { range in
        for block in range {
          let start = block * anchorBlock
          let length = min(anchorBlock, anchorCount - start)
          matchBlock(
            boxes, count, anchors + 4 * start, length, extent: extent, matches + start,
            overlaps + start, boxBest: blockBest + block * count)
        }
      }
      for j in 0..<count {
        var value: Float = -1
        for block in 0..<blocks { value = larger(blockBest[block * count + j], value) }
        best[j] = value
      }
      if let nearest { nearest.update(from: matches, count: anchorCount) }
      label(boxes, count, anchors, anchorCount, rule, best, matches, overlaps)
    }
  }

  /// Best box of each anchor of one block (first of equals) and best IoU of each box in the block.
  private static func matchBlock(
    _ boxes: UnsafePointer<Float>, _ count: Int, _ anchors: UnsafePointer<Float>, _ length: Int,
    extent: Float, _ matches: UnsafeMutablePointer<Int32>, _ overlaps: UnsafeMutablePointer<Float>,
    boxBest: UnsafeMutablePointer<Float>
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 6 * anchorBlock) { scratch in
      let columns = BoxColumns(anchors, length, extent: extent, scratch: scratch.baseAddress!)
      let ratios = scratch.baseAddress! + 5 * anchorBlock
      let (x1, y1, x2, y2) = (columns.x1, columns.y1, columns.x2, columns.y2)
      let area = columns.area
      for i in 0..<length {
        overlaps[i] = -1
        matches[i] = 0
      }
      for j in 0..<count {
        let box = boxes + 4 * j
        let (u1, v1, u2, v2) = (box[0], box[1], box[2], box[3])
        let own = (u2 - u1 + extent) * (v2 - v1 + extent)
        let index = Int32(truncatingIfNeeded: j)
        for i in 0..<length {
          let width = larger(smaller(u2, x2[i]) - larger(u1, x1[i]) + extent, 0)
          let height = larger(smaller(v2, y2[i]) - larger(v1, y1[i]) + extent, 0)
          let inter = width * height
          let union = own + area[i] - inter
          let ratio = union > 0 ? inter / union : 0
          ratios[i] = ratio
          matches[i] = ratio > overlaps[i] ? index : matches[i]
          overlaps[i] = ratio > overlaps[i] ? ratio : overlaps[i]
        }
        boxBest[j] = largest(ratios, length)
      }
    }
  }

  /// Turns best boxes into labels: thresholds first, then low-quality matches.
  private static func label(
    _ boxes: UnsafePointer<Float>, _ count: Int, _ anchors: UnsafePointer<Float>,
    _ anchorCount: Int, _ rule: MatchRule, _ best: UnsafePointer<Float>,
    _ matches: UnsafeMutablePointer<Int32>, _ overlaps: UnsafePointer<Float>
  ) {
    let extent: Float = rule.legacy ? 1 : 0
    // An anchor tied with a box's best IoU has at least that IoU with its own best box.
    var floor = Float.infinity
    for j in 0..<count where best[j] > rule.lowQualityMinimum { floor = smaller(best[j], floor) }
    parallelFor(count: anchorCount, grain: 8192) { range in
      for i in range where !(overlaps[i] >= rule.high) {
        let tied =
          rule.allowLowQuality && overlaps[i] >= floor
          && tiesWithBest(boxes, count, anchors + 4 * i, rule, best, extent: extent)
        if !tied { matches[i] = overlaps[i] < rule.low ? matchNegative : matchIgnored }
      }
    }
  }

  /// Whether the anchor has the best IoU of some box: recomputes exactly what the pass computed.
  private static func tiesWithBest(
    _ boxes: UnsafePointer<Float>, _ count: Int, _ anchor: UnsafePointer<Float>, _ rule: MatchRule,
    _ best: UnsafePointer<Float>, extent: Float
  ) -> Bool {
    let area = (anchor[2] - anchor[0] + extent) * (anchor[3] - anchor[1] + extent)
    for j in 0..<count where best[j] > rule.lowQualityMinimum {
      let box = boxes + 4 * j
      let own = (box[2] - box[0] + extent) * (box[3] - box[1] + extent)
      let width = larger(smaller(box[2], anchor[2]) - larger(box[0], anchor[0]) + extent, 0)
      let height = larger(smaller(box[3], anchor[3]) - larger(box[1], anchor[1]) + extent, 0)
      let inter = width * height
      let union = own + area - inter
      if (union > 0 ? inter / union : 0) == best[j] { return true }
    }
    return false
  }
}
