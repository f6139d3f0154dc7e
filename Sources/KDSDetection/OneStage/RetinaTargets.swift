import KDSKernels
import KDSTensor

/// Which anchors of a batch are positive, background or left out.
public struct DenseTargets {
  /// (N·M) class of every anchor, -1 for background, -2 for those that do not count.
  public let labels: Tensor
  /// Rows of the positives, image after image.
  public let positives: [Int]
  /// (P, 4) anchors of the positives and the boxes they belong to, xyxy input pixels.
  public let anchors, boxes: [Float]
  /// Positives of each image.
  public let counts: [Int]

  /// 1 / (N · max(1, positives)) for every image.
  public var factors: [Float] { counts.map { 1 / Float(counts.count * max(1, $0)) } }
}

/// Matches all anchors by IoU; none are sampled.
struct RetinaAssigner {
  let rule: MatchRule

  init(_ configuration: RetinaHeadConfiguration) {
    rule = MatchRule(
      high: configuration.positive_iou, low: configuration.negative_iou, allowLowQuality: true)
  }

  /// - Parameter grid: (M, 4) anchors of one image, all levels.
  func assign(_ grid: [Float], batch: PreparedBatch) throws -> DenseTargets {
    let perImage = grid.count / 4
    let labels = try Tensor(uninitialized: [batch.boxes.count * perImage], dtype: .int64)
    var (positives, counts): ([Int], [Int]) = ([], [])
    var (anchors, boxes): ([Float], [Float]) = ([], [])
    var matches = [Int32](repeating: Kernels.matchNegative, count: max(1, perImage))
    var overlaps = [Float](repeating: 0, count: max(1, perImage))
    for (image, own) in batch.boxes.enumerated() {
      Kernels.matchAnchors(
        boxes: own.isEmpty ? [0] : own, own.count / 4, anchors: grid, perImage, rule: rule,
        matches: &matches, overlaps: &overlaps)
      let first = positives.count
      for anchor in 0..<perImage {
        let (row, match) = (image * perImage + anchor, Int(matches[anchor]))
        if match >= 0 {
          labels.integers[row] = batch.labels[image][match]
          positives.append(row)
          anchors += grid[4 * anchor..<4 * anchor + 4]
          boxes += own[4 * match..<4 * match + 4]
        } else {
          labels.integers[row] = matches[anchor] == Kernels.matchNegative ? -1 : -2
        }
      }
      counts.append(positives.count - first)
    }
    return DenseTargets(
      labels: labels, positives: positives, anchors: anchors, boxes: boxes, counts: counts)
  }
}
