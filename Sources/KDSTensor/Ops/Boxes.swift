import KDSKernels

/// Operations on boxes (x1, y1, x2, y2) in pixels. None has a gradient.
public enum BoxOps {
  /// Indices (int64) of the boxes that non-maximum suppression keeps, by descending score; as
  /// `torchvision.ops.nms`.
  ///
  /// - Shapes: boxes (N, 4), scores (N).
  public static func nms(
    _ boxes: Tensor, _ scores: Tensor, threshold: Float, maxOutput: Int = .max
  ) throws -> Tensor {
    let (boxes, scores) = try scoredBoxes("nms", boxes, scores, threshold)
    let kept = Kernels.nms(
      boxes: boxes.floats, scores: scores.floats, scores.count, threshold: threshold,
      maxOutput: maxOutput)
    return try Tensor(kept.map(Int64.init), shape: [kept.count])
  }

  /// `nms` within each label; labels are int64 (N).
  public static func batchedNMS(
    _ boxes: Tensor, _ scores: Tensor, _ labels: Tensor, threshold: Float, maxOutput: Int = .max
  ) throws -> Tensor {
    let (boxes, scores) = try scoredBoxes("batched_nms", boxes, scores, threshold)
    try requireIntegers("batched_nms", "labels", labels)
    try requireSameShape("batched_nms", "scores and labels", scores.shape, labels.shape)
    let kept = Kernels.batchedNMS(
      boxes: boxes.floats, scores: scores.floats, labels: labels.integers, scores.count,
      threshold: threshold, maxOutput: maxOutput)
    return try Tensor(kept.map(Int64.init), shape: [kept.count])
  }

  /// Intersection over union of all pairs: (N, 4) and (M, 4) to (N, M).
  public static func iou(_ a: Tensor, _ b: Tensor) throws -> Tensor {
    let (first, second) = (try boxRows("box_iou", a), try boxRows("box_iou", b))
    let result = try Tensor(
      uninitialized: requireSize("box_iou", [first.shape[0], second.shape[0]]))
    Kernels.boxIoU(
      first.floats, first.shape[0], second.floats, second.shape[0], result.floats)
    return result
  }

  /// Generalised IoU of all pairs: (N, 4) and (M, 4) to (N, M).
  public static func generalizedIoU(_ a: Tensor, _ b: Tensor) throws -> Tensor {
    let name = "generalized_box_iou"
    let (first, second) = (try boxRows(name, a), try boxRows(name, b))
    let result = try Tensor(uninitialized: requireSize(name, [first.shape[0], second.shape[0]]))
    Kernels.generalizedBoxIoU(
      first.floats, first.shape[0], second.floats, second.shape[0], result.floats)
    return result
  }

  /// Ground-truth box of every anchor: (M, 4) and (N, 4) to int64 (N), with −1 for negatives and −2
  /// between the thresholds.
  public static func match(_ boxes: Tensor, _ anchors: Tensor, rule: MatchRule) throws -> Tensor {
    let name = "match_boxes"
    let (truth, places) = (try boxRows(name, boxes), try boxRows(name, anchors))
    guard rule.low <= rule.high else {
      throw KDSError.argument("\(name): low \(rule.low) must not be above high \(rule.high)")
    }
    let count = places.shape[0]
    var matches = [Int32](repeating: 0, count: count)
    var overlaps = [Float](repeating: 0, count: count)
    Kernels.matchAnchors(
      boxes: truth.floats, truth.shape[0], anchors: places.floats, count, rule: rule,
      matches: &matches, overlaps: &overlaps)
    return try Tensor(matches.map(Int64.init), shape: [count])
  }

  /// Boxes (N, 4) as plain floats off the tape.
  static func boxRows(_ name: String, _ boxes: Tensor) throws -> Tensor {
    try requireFloats(name, [boxes])
    guard boxes.rank == 2, boxes.shape[1] == 4 else {
      throw KDSError.shape("\(name): boxes must be (N, 4), not \(boxes.shape)")
    }
    return boxes.detached()
  }

  private static func scoredBoxes(
    _ name: String, _ boxes: Tensor, _ scores: Tensor, _ threshold: Float
  ) throws -> (Tensor, Tensor) {
    let rows = try boxRows(name, boxes)
    try requireFloats(name, [scores])
    guard scores.shape == [rows.shape[0]], rows.shape[0] <= Int(Int32.max) / 2 else {
      throw KDSError.shape("\(name): boxes \(boxes.shape) need scores (N), not \(scores.shape)")
    }
    guard !threshold.isNaN else { throw KDSError.argument("\(name): the IoU threshold is NaN") }
    return (rows, scores.detached())
  }
}
