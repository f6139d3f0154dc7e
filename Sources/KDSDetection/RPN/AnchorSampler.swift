import KDSKernels
import KDSTensor

/// Assigns anchors to boxes and draws the proposal network's mini-batch.
struct AnchorSampler {
  let configuration: RPNConfiguration

  /// One image's draw: anchor indices, and for the positives the offsets to learn.
  struct Draw {
    var positives: [Int]
    var negatives: [Int]
    /// (P, 4)
    var targets: [Float]
  }

  func draw(
    anchors: [Float], boxes: [Float], size: Size2, random: inout CounterRandom
  ) -> Draw {
    let inside = insideAnchors(anchors, size)
    var candidates = [Float](repeating: 0, count: 4 * inside.count)
    for (row, index) in inside.enumerated() {
      for side in 0..<4 { candidates[4 * row + side] = anchors[4 * index + side] }
    }
    var matches = [Int32](repeating: Kernels.matchNegative, count: inside.count)
    var overlaps = [Float](repeating: 0, count: inside.count)
    let rule = MatchRule(
      high: configuration.positive_iou, low: configuration.negative_iou, allowLowQuality: true)
    Kernels.matchAnchors(
      boxes: boxes.isEmpty ? [0] : boxes, boxes.count / 4, anchors: candidates, inside.count,
      rule: rule, matches: &matches, overlaps: &overlaps)
    let chosen = Kernels.sampleMatches(
      matches, inside.count, batch: configuration.batch,
      positiveFraction: configuration.positive_fraction, random: &random)
    let targets = encode(
      chosen.positives.map { Int(matches[$0]) }, boxes, chosen.positives, candidates)
    return Draw(
      positives: chosen.positives.map { inside[$0] },
      negatives: chosen.negatives.map { inside[$0] }, targets: targets)
  }

  private func insideAnchors(_ anchors: [Float], _ size: Size2) -> [Int] {
    let all = 0..<anchors.count / 4
    if !configuration.drop_border_anchors { return Array(all) }
    let (right, bottom) = (Float(size.width), Float(size.height))
    return all.filter {
      anchors[4 * $0] >= 0 && anchors[4 * $0 + 1] >= 0 && anchors[4 * $0 + 2] <= right
        && anchors[4 * $0 + 3] <= bottom
    }
  }

  private func encode(
    _ boxIndices: [Int], _ boxes: [Float], _ anchorIndices: [Int], _ anchors: [Float]
  ) -> [Float] {
    let count = boxIndices.count
    if count == 0 { return [] }
    let matched = boxIndices.flatMap { boxes[4 * $0..<4 * $0 + 4] }
    let from = anchorIndices.flatMap { anchors[4 * $0..<4 * $0 + 4] }
    var targets = [Float](repeating: 0, count: 4 * count)
    Kernels.encodeBoxes(matched, anchors: from, &targets, count)
    return targets
  }
}
