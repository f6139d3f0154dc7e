import KDSKernels
import Testing

/// Every kernel gives the same bits with one thread and with two (and three, which do not divide
/// the work evenly). Sizes are above the grains, so that the work is really split.
@Suite(.serialized) struct ThreadTests {
  func same(_ kernel: (inout [Float]) -> Double, count: Int, _ name: String) {
    let before = Threads.count
    defer { Threads.count = before }
    var results: [([UInt32], Double)] = []
    for threads in 1...3 {
      Threads.count = threads
      var out = [Float](repeating: -7, count: count)
      let value = kernel(&out)
      results.append((bits(out), value))
    }
    for result in results.dropFirst() {
      #expect(result.0 == results[0].0 && result.1 == results[0].1, "\(name)")
    }
    #expect(results[0].0.contains { $0 != Float(-7).bitPattern }, "\(name) wrote nothing")
  }

  @Test func losses() {
    let n = 150_001
    let (a, b) = (randoms(n, 1, -3, 3), randoms(n, 2, 0, 1))
    same({ Kernels.squaredDifference(a, b, n, gradient: &$0) }, count: n, "squared")
    same({ Kernels.smoothL1(a, b, n, beta: 0.5, gradient: &$0) }, count: n, "smooth L1")
    same({ Kernels.sigmoidFocal(a, b, n, gradient: &$0) }, count: n, "focal")
    same({ Kernels.binaryCrossEntropyWithLogits(a, b, n, gradient: &$0) }, count: n, "binary")
    let (rows, columns) = (3001, 21)
    let labels = (0..<rows).map { Int64($0 % columns) }
    same(
      {
        Kernels.softmaxCrossEntropy(
          logits: a, labels: labels, rows: rows, columns: columns, gradient: &$0)
      }, count: rows * columns, "cross-entropy")
    same(
      {
        Kernels.weightedSoftCrossEntropy(
          student: a, teacher: b, rows: rows, columns: columns, gradient: &$0)
      }, count: rows * columns, "soft cross-entropy")
    same(
      {
        $0[0] = 0
        return Kernels.sumOfSquares(a, n)
      }, count: 1, "sum of squares")
    let boxes = randomBoxes(9000, 3)
    same({ Kernels.giouLoss(boxes, a, 9000, gradient: &$0) }, count: 36000, "giou")
  }

  @Test func regionsAndMaps() {
    let map = MapGeometry(images: 2, channels: 40, height: 30, width: 31, block: 16)
    let x = randoms(map.size, 1)
    let rois = (0..<60).flatMap { i in [Float(i % 2)] + randomBoxes(1, UInt64(i)) }
    let grid = RoIGrid(height: 7, width: 7, spatialScale: 0.3, samplingRatio: 0, aligned: true)
    let size = 60 * 40 * 49
    let g = randoms(size, 2)
    same(
      {
        Kernels.roiAlignForward(x, map: map, rois: rois, 60, grid: grid, output: &$0)
        return 0
      }, count: size, "RoIAlign")
    same(
      {
        Kernels.roiAlignBackward(
          gradOutput: g, map: map, rois: rois, 60, grid: grid, gradInput: &$0)
        return 0
      }, count: map.size, "RoIAlign backward")
    var places = [Int32](repeating: 0, count: size)
    same(
      {
        Kernels.roiPoolForward(
          x, map: map, rois: rois, 60, grid: grid, output: &$0, argmax: &places)
        return 0
      }, count: size, "RoIPool")
    same(
      {
        Kernels.roiPoolBackward(
          gradOutput: g, argmax: places, map: map, rois: rois, 60, grid: grid, gradInput: &$0)
        return 0
      }, count: map.size, "RoIPool backward")
    same(
      {
        Kernels.bilinearForward(x, map: map, outHeight: 61, outWidth: 50, output: &$0)
        return 0
      }, count: 2 * 48 * 61 * 50, "bilinear")
    let wide = randoms(2 * 48 * 61 * 50, 3)
    same(
      {
        Kernels.bilinearBackward(
          gradOutput: wide, map: map, outHeight: 61, outWidth: 50, gradInput: &$0)
        return 0
      }, count: map.size, "bilinear backward")
  }

  @Test func rows() {
    let (rows, columns) = (2000, 65)
    let (x, g) = (randoms(rows * columns, 1), randoms(rows * columns, 2))
    same(
      {
        Kernels.softmax(x, &$0, rows: rows, columns: columns)
        return 0
      }, count: rows * columns, "softmax")
    let means = [Float](repeating: 0.1, count: rows)
    let inverses = [Float](repeating: 1.5, count: rows)
    for part in 0..<3 {
      same(
        { out in
          var input = [Float](repeating: 0, count: rows * columns)
          var (weight, bias) = (
            [Float](repeating: 0, count: columns), [Float](repeating: 0, count: columns)
          )
          Kernels.layerNormBackward(
            input: x, gradOutput: g, rows: rows, columns: columns, weight: nil, means: means,
            inverses: inverses, gradInput: &input, gradWeight: &weight, gradBias: &bias)
          out = [input, weight, bias][part]
          return 0
        }, count: 1, "layer norm backward")
    }
    same(
      {
        Kernels.fillNormal(&$0, 100_001, seed: 1, stream: 2)
        return 0
      }, count: 100_001, "normal numbers")
    let rule = LRNRule(size: 5)
    same(
      {
        Kernels.lrnForward(
          x, images: 2, channels: 65, area: 1000, rule: rule, output: &$0, denominators: nil)
        return 0
      }, count: 130_000, "LRN")
  }

  @Test func boxes() {
    let (boxes, anchors) = (randomBoxes(20, 1), randomBoxes(20_000, 2))
    let rule = MatchRule(high: 0.7, low: 0.3, allowLowQuality: true)
    same(
      {
        var matches = [Int32](repeating: 0, count: 20_000)
        Kernels.matchAnchors(
          boxes: boxes, 20, anchors: anchors, 20_000, rule: rule, matches: &matches,
          overlaps: &$0)
        return Double(matches.enumerated().reduce(0) { $0 &+ $1.offset &* Int($1.element) } % 9973)
      }, count: 20_000, "matcher")
    let scores = randoms(3000, 4)
    let labels = (0..<3000).map { Int64($0 % 7) }
    same(
      {
        let kept = Kernels.batchedNMS(
          boxes: anchors, scores: scores, labels: labels, 3000, threshold: 0.5)
        $0 = kept.map(Float.init)
        return 0
      }, count: 1, "batched NMS")
  }
}
