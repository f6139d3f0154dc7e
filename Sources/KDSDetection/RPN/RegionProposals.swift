import KDSKernels
import KDSNN
import KDSTensor

/// The proposal network after its head: mini-batch, losses and proposals.
public struct RegionProposals {
  public let anchors: PyramidAnchors
  public let configuration: RPNConfiguration

  public init(anchors: PyramidAnchors, configuration: RPNConfiguration) {
    self.anchors = anchors
    self.configuration = configuration
  }

  /// Draws the anchors that count in the losses, with a random stream per image.
  public func sample(
    _ output: RPNOutput, batch: PreparedBatch, seed: UInt64
  ) throws -> HeadSample {
    let grid = grids(output, batch.inputSize).flatMap { $0 }
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
  ///
  /// Every level gives its best by score before suppression, which runs per level, as in torchvision.
  public func proposals(
    _ output: RPNOutput, sizes: [Size2], input: Size2, training: Bool
  ) throws -> [[Float]] {
    let grids = grids(output, input)
    let before = training ? configuration.pre_nms_train : configuration.pre_nms_test
    let after = training ? configuration.post_nms_train : configuration.post_nms_test
    let perImage = output.anchors
    var candidates = [Candidates](repeating: Candidates(), count: output.images * grids.count)
    let (columns, logits, deltas) = (
      output.logits.shape[1], output.logits.floats, output.deltas.floats
    )
    var starts = [0]
    for grid in grids { starts.append(starts[starts.count - 1] + grid.count / 4) }
    candidates.withUnsafeMutableBufferPointer { slots in
      let slots = slots.baseAddress!
      parallelFor(count: output.images * grids.count, grain: 1) { range in
        for item in range {
          let (image, level) = (item / grids.count, item % grids.count)
          let first = image * perImage + starts[level]
          slots[item] = best(
            logits + first * columns, columns, deltas + first * 4, grids[level], sizes[image],
            before)
        }
      }
    }
    return (0..<output.images).map { image in
      merge(Array(candidates[image * grids.count..<(image + 1) * grids.count]), after)
    }
  }

  private func grids(_ output: RPNOutput, _ input: Size2) -> [[Float]] {
    output.maps.enumerated().map {
      anchors.grid(level: $0, map: Size2($1.height, $1.width), input: input)
    }
  }

  /// Boxes of one level before suppression, best first.
  private struct Candidates {
    var boxes: [Float] = []
    var scores: [Float] = []
  }

  private func best(
    _ logits: UnsafePointer<Float>, _ columns: Int, _ deltas: UnsafePointer<Float>,
    _ grid: [Float], _ size: Size2, _ limit: Int
  ) -> Candidates {
    let total = grid.count / 4
    let scores = [Float](unsafeUninitializedCapacity: total) { scores, filled in
      // The object probability grows with the difference of two logits, or with the one.
      for index in 0..<total {
        scores[index] = columns == 2 ? logits[2 * index + 1] - logits[2 * index] : logits[index]
      }
      filled = total
    }
    let chosen = Kernels.topK(scores, total, k: limit)
    let count = chosen.count
    if count == 0 { return Candidates() }
    var (base, codes) = (
      [Float](repeating: 0, count: 4 * count), [Float](repeating: 0, count: 4 * count)
    )
    for (row, index) in chosen.enumerated() {
      for side in 0..<4 {
        base[4 * row + side] = grid[4 * index + side]
        codes[4 * row + side] = deltas[4 * index + side]
      }
    }
    var boxes = [Float](repeating: 0, count: 4 * count)
    Kernels.decodeBoxes(codes, anchors: base, &boxes, count)
    Kernels.clipBoxes(&boxes, count, width: Float(size.width), height: Float(size.height))
    let large = Kernels.largeBoxes(boxes, count, minimum: configuration.min_size)
    return Candidates(
      boxes: large.flatMap { boxes[4 * $0..<4 * $0 + 4] }, scores: large.map { scores[chosen[$0]] })
  }

  /// Suppression within each level, then the best of all.
  private func merge(_ levels: [Candidates], _ limit: Int) -> [Float] {
    let boxes = levels.flatMap(\.boxes)
    let scores = levels.flatMap(\.scores)
    if scores.isEmpty { return [] }
    let survivors: [Int]
    if levels.count == 1 {
      survivors = Kernels.nms(
        boxes: boxes, scores: scores, scores.count, threshold: configuration.nms, maxOutput: limit)
    } else {
      let labels = levels.enumerated().flatMap { level, found in
        [Int64](repeating: Int64(level), count: found.scores.count)
      }
      survivors = Kernels.batchedNMS(
        boxes: boxes, scores: scores, labels: labels, scores.count, threshold: configuration.nms,
        maxOutput: limit)
    }
    return survivors.flatMap { boxes[4 * $0..<4 * $0 + 4] }
  }
}

/// Which random stream serves what, so that one more consumer changes no other's numbers.
public enum RandomStream {
  public static func anchors(image: Int) -> UInt64 { 1 << 40 | UInt64(image) }
  public static func regions(image: Int, stage: Int = 0) -> UInt64 {
    2 << 40 | UInt64(stage) << 32 | UInt64(image)
  }
  public static func dropout(layer: Int) -> UInt64 { 3 << 40 | UInt64(layer) }
  public static func dropPath(branch: Int) -> UInt64 { 5 << 40 | UInt64(branch) }
  /// Initial weights of connectors; the student's own weights use streams from 0.
  public static let connectors: UInt64 = 4 << 40
}
