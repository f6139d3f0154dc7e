import KDSKernels
import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// From dense outputs to detections: threshold, best of each level, decode, clip, suppression per class,
/// best of all, as in torchvision's RetinaNet and FCOS.
///
/// The threshold and the choice of the best act on the score that a detection ends up with. The
/// background's column, which learns nothing but 0, is never a detection; torchvision does not leave it out.
struct DensePostprocessing {
  let scoreThreshold, nmsThreshold: Float
  let candidates, limit: Int
  let coding: BoxCoding
  let scoring: ScoreRule
  let classes: Int

  init(_ head: DenseHead, _ options: PredictionOptions) {
    let own = head.common
    scoreThreshold = options.score_threshold >= 0 ? options.score_threshold : own.score_threshold
    nmsThreshold = options.nms_threshold >= 0 ? options.nms_threshold : own.nms
    limit = options.max_detections >= 0 ? options.max_detections : own.max_detections
    candidates = own.top_candidates
    (coding, scoring, classes) = (head.coding, head.scoring, head.classes)
  }

  /// Boxes of one level that may become detections.
  private struct Candidates {
    var boxes: [Float] = []
    var scores: [Float] = []
    var labels: [Int64] = []
  }

  /// What the head says about one level of one image.
  private struct Level {
    var logits, codes: UnsafePointer<Float>
    var centerness: UnsafePointer<Float>?
    var anchors: [Float]
    var stride: Float
  }

  func detections(
    _ maps: [DenseMaps], grid: DenseGrid, batch: PreparedBatch
  ) throws -> [[Detection]] {
    let levels = maps.count
    let (classes, columns) = (classes, coding.columns)
    let logits = try maps.map { try flattenMaps([$0.logits], columns: classes) }
    let codes = try maps.map { try flattenMaps([$0.boxes], columns: columns) }
    let central = try maps.map {
      try $0.centerness.map { try flattenMaps([$0], columns: 1) }
    }
    let images = batch.sizes.count
    var found = [Candidates](repeating: Candidates(), count: images * levels)
    found.withUnsafeMutableBufferPointer { slots in
      let slots = slots.baseAddress!
      parallelFor(count: images * levels, grain: 1) { range in
        for item in range {
          let (image, level) = (item / levels, item % levels)
          let first = image * grid.levels[level].count / 4
          slots[item] = best(
            Level(
              logits: logits[level].floats + first * classes,
              codes: codes[level].floats + first * columns,
              centerness: central[level].map { UnsafePointer($0.floats + first) },
              anchors: grid.levels[level], stride: Float(grid.strides[level])),
            batch.sizes[image])
        }
      }
    }
    return (0..<images).map { image in
      merge(Array(found[image * levels..<(image + 1) * levels]), scale: batch.scales[image])
    }
  }

  private func best(_ level: Level, _ size: Size2) -> Candidates {
    var (places, values): ([Int], [Float]) = ([], [])
    let logits = level.logits
    var bar = logit(scoreThreshold)
    for cell in 0..<level.anchors.count / 4 {
      let share = level.centerness.map { probability($0[cell]) } ?? 1
      if level.centerness != nil { bar = self.bar(share) }
      // Column 0 is the background's.
      for index in cell * classes + 1..<(cell + 1) * classes where logits[index] > bar {
        places.append(index)
        values.append(level.centerness == nil ? logits[index] : score(logits[index], share))
      }
    }
    let chosen = Kernels.topK(values, values.count, k: candidates)
    if chosen.isEmpty { return Candidates() }
    let cells = chosen.map { places[$0] / classes }
    return Candidates(
      boxes: boxes(level, cells, size),
      scores: chosen.map { level.centerness == nil ? probability(values[$0]) : values[$0] },
      labels: chosen.map { Int64(places[$0] % classes) })
  }

  /// Decoded and clipped boxes of some cells.
  private func boxes(_ level: Level, _ cells: [Int], _ size: Size2) -> [Float] {
    let (count, columns) = (cells.count, coding.columns)
    var codes = [Float](repeating: 0, count: columns * count)
    var anchors = [Float](repeating: 0, count: 4 * count)
    for (row, cell) in cells.enumerated() {
      for column in 0..<columns {
        codes[columns * row + column] = level.codes[columns * cell + column]
      }
      for side in 0..<4 { anchors[4 * row + side] = level.anchors[4 * cell + side] }
    }
    var result = [Float](repeating: 0, count: 4 * count)
    coding.decode(codes, anchors: anchors, stride: level.stride, &result, count)
    Kernels.clipBoxes(
      &result, count, width: Float(size.width), height: Float(size.height))
    return result
  }

  // MARK: - Scores

  private func probability(_ logit: Float) -> Float { 1 / (1 + exp(-logit)) }

  private func logit(_ probability: Float) -> Float {
    probability <= 0
      ? -.infinity : probability >= 1 ? .infinity : log(probability / (1 - probability))
  }

  /// The class logit above which the score passes the threshold: it grows with the logit, so that the
  /// threshold moves instead of every logit.
  private func bar(_ centerness: Float) -> Float {
    let wanted = scoring == .root ? scoreThreshold * scoreThreshold : scoreThreshold
    return centerness > 0 ? logit(wanted / centerness) : .infinity
  }

  private func score(_ logit: Float, _ centerness: Float) -> Float {
    let product = probability(logit) * centerness
    return scoring == .root ? product.squareRoot() : product
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
