import KDSKernels
import KDSTensor

/// The regions of one batch that the region head is trained on.
public struct SampledRegions {
  /// (R, 5): image, x1, y1, x2, y2 in input pixels.
  public let rois: Tensor
  /// (R), 0 = background.
  public let labels: [Int64]
  /// Rows of the positives.
  public let positives: [Int]
  /// (P, 4) offsets to the matched boxes, divided by the standard deviations.
  public let targets: [Float]
  /// (P) the box of its image that each positive was matched to.
  public let matchedBoxes: [Int]
  /// (R) whether the region is a ground-truth box itself.
  public let isTruth: [Bool]
}

/// Draws regions: ground-truth boxes join the proposals; at most a quarter positives (IoU ≥ 0.5), the
/// rest negatives with IoU in [negative_low, 0.5).
struct RegionSampler {
  let configuration: RoIConfiguration
  /// Which of several samplers this is; each draws from streams of its own.
  var stage = 0

  /// 1 / standard deviations, the weights of the box code.
  var boxWeights: SIMD4<Float> {
    let std = configuration.box_std
    return SIMD4(1 / std[0], 1 / std[1], 1 / std[2], 1 / std[3])
  }

  func draw(proposals: [[Float]], batch: PreparedBatch, seed: UInt64) throws -> SampledRegions {
    var rois: [Float] = []
    var labels: [Int64] = []
    var positives: [Int] = []
    var targets: [Float] = []
    var matched: [Int] = []
    var isTruth: [Bool] = []
    for image in proposals.indices {
      let boxes = batch.boxes[image]
      let candidates = proposals[image] + boxes
      let count = candidates.count / 4
      var matches = match(candidates, count, boxes)
      var random = CounterRandom(
        seed: seed, stream: RandomStream.regions(image: image, stage: stage))
      let chosen = Kernels.sampleMatches(
        &matches, count, batch: configuration.batch,
        positiveFraction: configuration.positive_fraction, random: &random)
      for index in chosen.positives + chosen.negatives {
        if matches[index] >= 0 { positives.append(labels.count) }
        labels.append(matches[index] >= 0 ? batch.labels[image][Int(matches[index])] : 0)
        isTruth.append(index >= proposals[image].count / 4)
        rois.append(Float(image))
        rois += candidates[4 * index..<4 * index + 4]
      }
      matched += chosen.positives.map { Int(matches[$0]) }
      targets += encode(chosen.positives, matches, candidates, boxes)
    }
    return SampledRegions(
      rois: try Tensor(rois, shape: [labels.count, 5]), labels: labels, positives: positives,
      targets: targets, matchedBoxes: matched, isTruth: isTruth)
  }

  private func match(_ candidates: [Float], _ count: Int, _ boxes: [Float]) -> [Int32] {
    var matches = [Int32](repeating: Kernels.matchNegative, count: max(1, count))
    var overlaps = [Float](repeating: 0, count: max(1, count))
    if count == 0 { return matches }
    Kernels.matchAnchors(
      boxes: boxes.isEmpty ? [0] : boxes, boxes.count / 4, anchors: candidates, count,
      rule: MatchRule(high: configuration.positive_iou, low: configuration.positive_iou),
      matches: &matches, overlaps: &overlaps)
    if configuration.negative_low > 0 {
      for index in 0..<count where matches[index] == Kernels.matchNegative {
        if overlaps[index] < configuration.negative_low { matches[index] = Kernels.matchIgnored }
      }
    }
    return matches
  }

  private func encode(
    _ positives: [Int], _ matches: [Int32], _ candidates: [Float], _ boxes: [Float]
  ) -> [Float] {
    if positives.isEmpty { return [] }
    let matched = positives.flatMap { index -> ArraySlice<Float> in
      let box = 4 * Int(matches[index])
      return boxes[box..<box + 4]
    }
    let from = positives.flatMap { candidates[4 * $0..<4 * $0 + 4] }
    var targets = [Float](repeating: 0, count: 4 * positives.count)
    Kernels.encodeBoxes(
      matched, anchors: from, &targets, positives.count, weights: boxWeights)
    return targets
  }
}
