import KDSKernels
import KDSTensor

/// From region logits to detections: softmax, decode per class, clip, threshold, NMS per class, best N.
struct RoIPostprocessing {
  let scoreThreshold, nmsThreshold, minimumSide: Float
  let limit: Int
  let boxWeights: SIMD4<Float>

  init(configuration: RoIConfiguration, options: PredictionOptions) {
    scoreThreshold =
      options.score_threshold >= 0 ? options.score_threshold : configuration.score_threshold
    nmsThreshold = options.nms_threshold >= 0 ? options.nms_threshold : configuration.nms
    limit = options.max_detections >= 0 ? options.max_detections : configuration.max_detections
    boxWeights = RegionSampler(configuration: configuration).boxWeights
    minimumSide = configuration.min_size
  }

  /// Detections in pixels of the original images.
  ///
  /// - Parameter counts: regions per image; `rois` lists them image after image.
  func detections(
    logits: Tensor, deltas: Tensor, rois: Tensor, counts: [Int], batch: PreparedBatch
  ) throws -> [[Detection]] {
    try Self.inOriginals(
      inInput(logits: logits, deltas: deltas, rois: rois, counts: counts, batch: batch), batch)
  }

  /// Boxes in input pixels to those of the originals.
  static func inOriginals(_ found: [[Detection]], _ batch: PreparedBatch) -> [[Detection]] {
    found.enumerated().map { image, list in
      let scale = batch.scales[image]
      return list.map { detection in
        var result = detection
        result.box = detection.box / SIMD4(scale.x, scale.y, scale.x, scale.y)
        return result
      }
    }
  }

  /// `detections` with boxes in input pixels.
  func inInput(
    logits: Tensor, deltas: Tensor, rois: Tensor, counts: [Int], batch: PreparedBatch
  ) throws -> [[Detection]] {
    try inInput(
      scores: Self.probabilities(logits), deltas: deltas, rois: rois, counts: counts, batch: batch)
  }

  /// Softmax of logits (R, K).
  static func probabilities(_ logits: Tensor) throws -> Tensor {
    let scores = try Tensor(uninitialized: logits.shape)
    Kernels.softmax(
      logits.floats, scores.floats, rows: logits.shape[0], columns: logits.shape[1])
    return scores
  }

  /// `detections` from probabilities (R, K), with boxes in input pixels; deltas (R, 4) are shared by all
  /// classes.
  func inInput(
    scores: Tensor, deltas: Tensor, rois: Tensor, counts: [Int], batch: PreparedBatch
  ) throws -> [[Detection]] {
    let (rows, classes) = (scores.shape[0], scores.shape[1])
    let boxClasses = deltas.shape[1] / 4
    var anchors = [Float](repeating: 0, count: 4 * max(1, rows))
    for row in 0..<rows {
      for side in 0..<4 { anchors[4 * row + side] = rois.floats[5 * row + 1 + side] }
    }
    let boxes = try Tensor(uninitialized: [rows, boxClasses * 4])
    Kernels.decodeBoxes(
      deltas.floats, anchors: anchors, boxes.floats, rows, classes: boxClasses,
      weights: boxWeights)
    var first = 0
    return counts.enumerated().map { image, count in
      defer { first += count }
      return finish(
        scores.floats + first * classes, boxes.floats + first * boxClasses * 4, count,
        (classes, boxClasses), size: batch.sizes[image])
    }
  }

  private func finish(
    _ scores: UnsafePointer<Float>, _ boxes: UnsafeMutablePointer<Float>, _ rows: Int,
    _ widths: (classes: Int, boxes: Int), size: Size2
  ) -> [Detection] {
    Kernels.clipBoxes(
      boxes, rows * widths.boxes, width: Float(size.width), height: Float(size.height))
    var (kept, keptScores, labels): ([Float], [Float], [Int64]) = ([], [], [])
    for row in 0..<rows {
      for label in 1..<widths.classes
      where scores[row * widths.classes + label] > scoreThreshold {
        let box = boxes + 4 * (widths.boxes == 1 ? row : row * widths.classes + label)
        if !(box[2] - box[0] > minimumSide && box[3] - box[1] > minimumSide) { continue }
        kept += UnsafeBufferPointer(start: box, count: 4)
        keptScores.append(scores[row * widths.classes + label])
        labels.append(Int64(label))
      }
    }
    if labels.isEmpty { return [] }
    let survivors = Kernels.batchedNMS(
      boxes: kept, scores: keptScores, labels: labels, labels.count, threshold: nmsThreshold,
      maxOutput: limit)
    return survivors.map { index in
      Detection(
        box: SIMD4(
          kept[4 * index], kept[4 * index + 1], kept[4 * index + 2], kept[4 * index + 3]),
        score: keptScores[index], label: labels[index])
    }
  }
}
