import Glibc
import KDSKernels
import Testing

@Suite struct BoxTests {
  @Test func iouOfKnownBoxes() {
    let a: [Float] = [0, 0, 10, 10, 0, 0, 0, 0]
    let b: [Float] = [0, 0, 10, 10, 5, 0, 15, 10, 20, 20, 30, 30, 0, 0, 0, 0]
    var out = [Float](repeating: -1, count: 8)
    Kernels.boxIoU(a, 2, b, 4, &out)
    #expect(Array(out[0..<4]) == [1, 50.0 / 150, 0, 0])
    #expect(out[4] == 0 && out[7].isNaN)
    Kernels.boxIoU([0, 0, 9, 9], 1, [0, 0, 9, 9, 9, 0, 18, 9], 2, &out, legacy: true)
    #expect(out[0] == 1 && out[1] == 10.0 / 190)
    Kernels.generalizedBoxIoU(a, 1, b, 3, &out)
    // Hull 30 x 30, union 200: 0 - 700 / 900.
    #expect(out[0] == 1 && abs(out[2] + 700.0 / 900) < 1e-6)
  }

  @Test(arguments: [false, true]) func encodeThenDecodeIsTheIdentity(_ legacy: Bool) {
    let n = 37
    let (boxes, anchors) = (randomBoxes(n, 1), randomBoxes(n, 2))
    var (codes, back) = (boxes, boxes)
    let weights = SIMD4<Float>(10, 10, 5, 5)
    Kernels.encodeBoxes(boxes, anchors: anchors, &codes, n, weights: weights, legacy: legacy)
    Kernels.decodeBoxes(codes, anchors: anchors, &back, n, weights: weights, legacy: legacy)
    #expect(error(back, boxes) < 1e-5)  // a few roundings of coordinates up to 100
    let zero = [Float](repeating: 0, count: 4 * n)
    Kernels.decodeBoxes(zero, anchors: anchors, &back, n, legacy: legacy)
    #expect(error(back, anchors) < 1e-6)
  }

  @Test func decodingCutsTheSizeOff() {
    var out = [Float](repeating: 0, count: 8)
    Kernels.decodeBoxes(
      [0, 0, 100, .infinity, 0, 0, 0, 0], anchors: [0, 0, 16, 16], &out, 1, classes: 2)
    // 16 * 1000 / 16 = 1000 wide, centred at 8; the limit is rounded to single precision.
    #expect(abs(out[2] - out[0] - 1000) < 1e-2 && abs(out[3] - out[1] - 1000) < 1e-2)
    #expect(Array(out[4...]) == [0, 0, 16, 16])
  }

  @Test func clipAndSmall() {
    var boxes: [Float] = [-5, 3, 200, 40, .nan, 0, 10, 10, 1, 1, 2, 9]
    Kernels.clipBoxes(&boxes, 3, width: 100, height: 30)
    #expect(Array(boxes[0..<4]) == [0, 3, 100, 30] && boxes[4] == 0)
    #expect(Kernels.largeBoxes(boxes, 3, minimum: 1.5) == [0, 1])
    #expect(Kernels.largeBoxes(boxes, 3, minimum: 2, legacy: true) == [0, 1, 2])
    Kernels.clipBoxes(&boxes, 1, width: 100, height: 30, legacy: true)
    #expect(boxes[2] == 99 && boxes[3] == 29)
  }
}

@Suite struct NMSTests {
  @Test(arguments: [1, 2, 16, 17, 65, 300]) func agreesWithTheDefinition(_ n: Int) {
    let boxes = randomBoxes(n, UInt64(n))
    // Few different scores: ties everywhere.
    let scores = randoms(n, 5, 0, 20).map { $0.rounded() }
    for threshold: Float in [0, 0.3, 0.7, 1] {
      let kept = Kernels.nms(boxes: boxes, scores: scores, n, threshold: threshold)
      #expect(kept == Reference.nms(boxes: boxes, scores: scores, threshold: threshold))
      let few = Kernels.nms(boxes: boxes, scores: scores, n, threshold: threshold, maxOutput: 3)
      #expect(few == Array(kept.prefix(3)))
    }
  }

  @Test func equalToTheThresholdIsKept() {
    // IoU exactly 50 / 100.
    let boxes: [Float] = [0, 0, 10, 10, 0, 0, 10, 5]
    #expect(Kernels.nms(boxes: boxes, scores: [1, 0.5], 2, threshold: 0.5) == [0, 1])
    #expect(Kernels.nms(boxes: boxes, scores: [1, 0.5], 2, threshold: 0.4999) == [0])
    #expect(Kernels.nms(boxes: boxes, scores: [1, .nan], 2, threshold: 0.5) == [0])
    #expect(Kernels.nms(boxes: boxes, scores: [.nan, .nan], 2, threshold: 0.5) == [])
    #expect(
      Kernels.nms(boxes: boxes, scores: [-.infinity, .infinity], 2, threshold: 0.9) == [1, 0])
    #expect(Kernels.nms(boxes: boxes, scores: [], 0, threshold: 0.5) == [])
  }

  @Test func labelsAreIndependent() {
    let n = 200
    let boxes = randomBoxes(n, 3)
    let scores = randoms(n, 4, 0, 1)
    let labels = (0..<n).map { Int64([-5, 0, 3, 1 << 40][$0 % 4]) }
    let kept = Kernels.batchedNMS(boxes: boxes, scores: scores, labels: labels, n, threshold: 0.3)
    var expected: [Int] = []
    for label in Set(labels) {
      let members = (0..<n).filter { labels[$0] == label }
      let own = members.flatMap { Array(boxes[4 * $0..<4 * $0 + 4]) }
      expected += Reference.nms(boxes: own, scores: members.map { scores[$0] }, threshold: 0.3).map
      { members[$0] }
    }
    #expect(kept == expected.sorted { scores[$0] > scores[$1] })
    let few = Kernels.batchedNMS(
      boxes: boxes, scores: scores, labels: labels, n, threshold: 0.3, maxOutput: 7)
    #expect(few == Array(kept.prefix(7)))
  }

  @Test func sortIsStableAndPutsNaNLast() {
    let scores: [Float] = [0, -0.0, .nan, 3, -1, 3, -.infinity, .infinity, -.nan, -1]
    var order = [Int32](repeating: 0, count: scores.count)
    Kernels.argsortDescending(scores, scores.count, &order)
    #expect(order == [7, 3, 5, 0, 1, 4, 9, 6, 2, 8])
    #expect(Kernels.topK(scores, scores.count, k: 2) == [7, 3])
    let many = randoms(5000, 9, -1e3, 1e3)
    let expected = many.indices.sorted { many[$0] > many[$1] }
    #expect(Kernels.topK(many, 5000, k: 9999).map { many[$0] } == expected.map { many[$0] })
  }
}

@Suite struct MatcherTests {
  static func match(
    _ boxes: [Float], _ anchors: [Float], _ rule: MatchRule
  ) -> (matches: [Int32], overlaps: [Float], nearest: [Int32]) {
    let n = anchors.count / 4
    var matches = [Int32](repeating: 9, count: n)
    var overlaps = [Float](repeating: 9, count: n)
    var nearest = matches
    Kernels.matchAnchors(
      boxes: boxes, boxes.count / 4, anchors: anchors, n, rule: rule, matches: &matches,
      overlaps: &overlaps, nearest: &nearest)
    return (matches, overlaps, nearest)
  }

  @Test(arguments: [(1, 5), (3, 512), (7, 1300)]) func agreesWithTheMatrix(_ sizes: (Int, Int)) {
    let (m, n) = sizes
    var anchors = randomBoxes(n, 2)
    // Copies of an anchor: ties for the best of a box.
    for k in 0..<4 { anchors[4 * (n - 1) + k] = anchors[k] }
    let boxes = randomBoxes(m, 1)
    var iou = [Float](repeating: 0, count: m * n)
    Kernels.boxIoU(boxes, m, anchors, n, &iou)
    for low in [false, true] {
      let rule = MatchRule(high: 0.5, low: 0.3, allowLowQuality: low)
      let found = Self.match(boxes, anchors, rule)
      let best = (0..<m).map { j in (0..<n).map { iou[j * n + $0] }.max()! }
      for i in 0..<n {
        let column = (0..<m).map { iou[$0 * n + i] }
        let top = column.max()!
        let argument = Int32(column.firstIndex(of: top)!)
        let tied = low && (0..<m).contains { best[$0] > 0 && column[$0] == best[$0] }
        let label = top >= 0.5 || tied ? argument : (top < 0.3 ? -1 : -2)
        #expect(found.matches[i] == label && found.overlaps[i] == top)
        #expect(found.nearest[i] == argument)
      }
    }
  }

  @Test func thresholdsAreAtLeastAndBelow() {
    // IoU with the box: 0.75, 0.5, 0.25 exactly.
    let anchors: [Float] = [0, 0, 4, 3, 0, 0, 4, 2, 0, 0, 4, 1]
    let box: [Float] = [0, 0, 4, 4]
    #expect(Self.match(box, anchors, MatchRule(high: 0.75, low: 0.5)).matches == [0, -2, -1])
    #expect(Self.match(box, anchors, MatchRule(high: 0.8, low: 0.25)).matches == [-2, -2, -2])
    let low = MatchRule(high: 0.8, low: 0.25, allowLowQuality: true)
    #expect(Self.match(box, anchors, low).matches == [0, -2, -2])
  }

  @Test func boxesNobodyTouches() {
    let anchors: [Float] = [0, 0, 4, 4, 10, 10, 14, 14]
    var rule = MatchRule(high: 0.7, low: 0.3, allowLowQuality: true)
    #expect(Self.match([50, 50, 60, 60], anchors, rule).matches == [-1, -1])
    rule.lowQualityMinimum = -1
    #expect(Self.match([50, 50, 60, 60], anchors, rule).matches == [0, 0])
    #expect(Self.match([], anchors, rule).matches == [-1, -1])
    #expect(
      Self.match([.nan, 0, 5, 5], anchors, MatchRule(high: 0.7, low: 0.3)).matches == [-1, -1])
  }

  @Test func samplerKeepsTheQuota() {
    let matches: [Int32] = (0..<1000).map { $0 < 300 ? Int32($0) : ($0 < 900 ? -1 : -2) }
    var random = CounterRandom(seed: 1)
    let (p, n) = Kernels.sampleMatches(
      matches, 1000, batch: 256, positiveFraction: 0.5, random: &random)
    #expect(p.count == 128 && n.count == 128 && Set(p).count == 128 && Set(n).count == 128)
    #expect(p.allSatisfy { $0 < 300 } && n.allSatisfy { $0 >= 300 && $0 < 900 })
    var again = CounterRandom(seed: 1)
    #expect(
      Kernels.sampleMatches(matches, 1000, batch: 256, positiveFraction: 0.5, random: &again)
        .positives == p)
    let few: [Int32] = [0, -1, -1, -2, -1]
    let all = Kernels.sampleMatches(few, 5, batch: 4, positiveFraction: 0.5, random: &random)
    #expect(all.positives == [0] && all.negatives == [1, 2, 4])
  }
}
