import KDSKernels
import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// From dense sigmoid logits to detections: threshold, best of each level, decode, clip, suppression per
/// class, best of all, as in torchvision's RetinaNet.
struct DensePostprocessing {
  let scoreThreshold, nmsThreshold: Float
  let candidates, limit: Int

  init(_ configuration: RetinaHeadConfiguration, _ options: PredictionOptions) {
    scoreThreshold =
      options.score_threshold >= 0 ? options.score_threshold : configuration.score_threshold
    nmsThreshold = options.nms_threshold >= 0 ? options.nms_threshold : configuration.nms
    limit = options.max_detections >= 0 ? options.max_detections : configuration.max_detections
    candidates = configuration.top_candidates
  }

  /// Boxes of one level that may become detections.
  private struct Candidates {
    var boxes: [Float] = []
    var scores: [Float] = []
    var labels: [Int64] = []
  }

  /// - Parameters:
  ///   - maps: of all levels; `grids`: their anchors.
  func detections(
    _ maps: [DenseMaps], grids: [[Float]], classes: Int, batch: PreparedBatch
  ) throws -> [[Detection]] {
    let levels = maps.count
    let logits = try maps.map { try flattenMaps([$0.logits], columns: classes) }
    let deltas = try maps.map { try flattenMaps([$0.boxes], columns: 4) }
    let images = batch.sizes.count
    var found = [Candidates](repeating: Candidates(), count: images * levels)
    found.withUnsafeMutableBufferPointer { slots in
      let slots = slots.baseAddress!
      parallelFor(count: images * levels, grain: 1) { range in
        for item in range {
          let (image, level) = (item / levels, item % levels)
          let first = image * grids[level].count / 4
          slots[item] = best(
            logits[level].floats + first * classes, deltas[level].floats + first * 4,
            grids[level], classes, batch.sizes[image])
        }
      }
    }
    return (0..<images).map { image in
      merge(Array(found[image * levels..<(image + 1) * levels]), scale: batch.scales[image])
    }
  }

  private func best(
    _ logits: UnsafePointer<Float>, _ deltas: UnsafePointer<Float>, _ grid: [Float],
    _ classes: Int, _ size: Size2
  ) -> Candidates {
    let total = grid.count / 4 * classes
    // Sigmoid grows with its logit: the threshold moves instead of every logit.
    let bar = logit(scoreThreshold)
    var (places, values): ([Int32], [Float]) = ([], [])
    for index in 0..<total where logits[index] > bar {
      places.append(Int32(index))
      values.append(logits[index])
    }
    let chosen = Kernels.topK(values, values.count, k: candidates)
    let count = chosen.count
    if count == 0 { return Candidates() }
    var result = Candidates(
      boxes: [Float](repeating: 0, count: 4 * count), scores: [Float](repeating: 0, count: count),
      labels: [Int64](repeating: 0, count: count))
    var (codes, anchors) = (result.boxes, result.boxes)
    for (row, position) in chosen.enumerated() {
      let place = Int(places[position])
      result.labels[row] = Int64(place % classes)
      result.scores[row] = 1 / (1 + exp(-values[position]))
      for side in 0..<4 {
        codes[4 * row + side] = deltas[4 * (place / classes) + side]
        anchors[4 * row + side] = grid[4 * (place / classes) + side]
      }
    }
    Kernels.decodeBoxes(codes, anchors: anchors, &result.boxes, count)
    Kernels.clipBoxes(
      &result.boxes, count, width: Float(size.width), height: Float(size.height))
    return result
  }

  private func logit(_ probability: Float) -> Float {
    probability <= 0
      ? -.infinity : probability >= 1 ? .infinity : log(probability / (1 - probability))
  }

  private func merge(_ levels: [Candidates], scale: (y: Float, x: Float)) -> [Detection] {
    let boxes = levels.flatMap(\.boxes)
    let scores = levels.flatMap(\.scores)
    let labels = levels.flatMap(\.labels)
    if scores.isEmpty { return [] }
    let survivors = Kernels.batchedNMS(
      boxes: boxes, scores: scores, labels: labels, scores.count, threshold: nmsThreshold,
      maxOutput: limit)
    return survivors.map { index in
      Detection(
        box: SIMD4(
          boxes[4 * index] / scale.x, boxes[4 * index + 1] / scale.y,
          boxes[4 * index + 2] / scale.x, boxes[4 * index + 3] / scale.y),
        score: scores[index], label: labels[index])
    }
  }
}
