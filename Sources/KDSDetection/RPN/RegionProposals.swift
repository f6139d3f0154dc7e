import KDSKernels
import KDSNN
import KDSTensor

/// The proposal network after its head: mini-batch, losses and proposals.
public struct RegionProposals {
  public let anchors: AnchorGenerator
  public let configuration: RPNConfiguration

  public init(anchors: AnchorGenerator, configuration: RPNConfiguration) {
    self.anchors = anchors
    self.configuration = configuration
  }

  /// Draws the anchors that count in the losses; `randoms` gives one generator per image.
  public func sample(
    _ output: RPNOutput, batch: PreparedBatch, stride: Int, seed: UInt64
  ) throws -> HeadSample {
    let grid = anchors.grid(height: output.height, width: output.width, stride: stride)
    let perImage = grid.count / 4
    let sampler = AnchorSampler(configuration: configuration)
    var (rows, positiveRows): ([Int], [Int]) = ([], [])
    var labels: [Int64] = []
    var targets: [Float] = []
    for image in 0..<output.images {
      var random = CounterRandom(seed: seed, stream: RandomStream.anchors(image: image))
      let draw = sampler.draw(
        anchors: grid, boxes: batch.boxes[image], size: batch.sizes[image], random: &random)
      let base = image * perImage
      rows += draw.positives.map { base + $0 } + draw.negatives.map { base + $0 }
      positiveRows += draw.positives.map { base + $0 }
      labels += draw.positives.map { _ in 1 } + draw.negatives.map { _ in 0 }
      targets += draw.targets
    }
    return HeadSample(
      logits: try output.logits.gatherRows(rows),
      labels: try Tensor(labels, shape: [labels.count]),
      deltas: try output.deltas.gatherRows(positiveRows),
      targets: try Tensor(targets, shape: [positiveRows.count, 4]),
      rows: rows, positiveRows: positiveRows,
      positiveClasses: positiveRows.map { _ in 0 })
  }

  /// The best boxes per image, (K, 4) in input pixels, best first; no gradient passes (approximate joint training).
  public func proposals(
    _ output: RPNOutput, sizes: [Size2], stride: Int, training: Bool
  ) throws -> [[Float]] {
    let grid = anchors.grid(height: output.height, width: output.width, stride: stride)
    let perImage = grid.count / 4
    let before = training ? configuration.pre_nms_train : configuration.pre_nms_test
    let after = training ? configuration.post_nms_train : configuration.post_nms_test
    return (0..<output.images).map { image in
      let logits = output.logits.floats + image * perImage * 2
      // The object probability grows with the difference of the two logits.
      let scores = (0..<perImage).map { logits[2 * $0 + 1] - logits[2 * $0] }
      let best = topIndices(scores, before)
      return select(
        best, scores, grid, output.deltas.floats + image * perImage * 4, sizes[image], after)
    }
  }

  private func select(
    _ best: [Int], _ scores: [Float], _ grid: [Float], _ deltas: UnsafePointer<Float>,
    _ size: Size2, _ limit: Int
  ) -> [Float] {
    let count = best.count
    if count == 0 { return [] }
    let base = best.flatMap { grid[4 * $0..<4 * $0 + 4] }
    let codes = best.flatMap { index in (0..<4).map { deltas[4 * index + $0] } }
    var boxes = [Float](repeating: 0, count: 4 * count)
    Kernels.decodeBoxes(codes, anchors: base, &boxes, count)
    Kernels.clipBoxes(&boxes, count, width: Float(size.width), height: Float(size.height))
    let large = Kernels.largeBoxes(boxes, count, minimum: configuration.min_size)
    let kept = large.flatMap { boxes[4 * $0..<4 * $0 + 4] }
    let keptScores = large.map { scores[best[$0]] }
    if large.isEmpty { return [] }
    let survivors = Kernels.nms(
      boxes: kept, scores: keptScores, large.count, threshold: configuration.nms, maxOutput: limit)
    return survivors.flatMap { kept[4 * $0..<4 * $0 + 4] }
  }
}

/// Indices of the `limit` highest scores, highest first, the lower index first among equals; NaN last.
func topIndices(_ scores: [Float], _ limit: Int) -> [Int] {
  var order = Array(scores.indices)
  func key(_ index: Int) -> Float { scores[index].isNaN ? -.infinity : scores[index] }
  if limit < order.count / 4 {
    // A threshold from the sorted values first: most anchors never enter the index sort.
    let values = scores.map { $0.isNaN ? -.infinity : $0 }.sorted(by: >)
    let bar = values[max(0, limit - 1)]
    order = order.filter { key($0) >= bar }
  }
  order.sort { key($0) != key($1) ? key($0) > key($1) : $0 < $1 }
  return Array(order.prefix(max(0, limit)))
}

/// Which random stream serves what, so that one more consumer changes no other's numbers.
public enum RandomStream {
  public static func anchors(image: Int) -> UInt64 { 1 << 40 | UInt64(image) }
  public static func regions(image: Int) -> UInt64 { 2 << 40 | UInt64(image) }
  public static func dropout(layer: Int) -> UInt64 { 3 << 40 | UInt64(layer) }
  /// Initial weights of connectors; the student's own weights use streams from 0.
  public static let connectors: UInt64 = 4 << 40
}
