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
  /// (P) strides of the levels of the positives.
  public let strides: [Float]
  /// Positives of each image.
  public let counts: [Int]

  /// 1 / (N · max(1, positives)) for every image.
  public var factors: [Float] { counts.map { 1 / Float(counts.count * max(1, $0)) } }

  /// 1 / max(1, positives of the batch).
  public var factor: Float { 1 / Float(max(1, positives.count)) }

  /// How central each positive lies in its box (Tian et al. 2019, eq. 3): with the distances l, t, r, b
  /// of the anchor's centre to the sides, sqrt(min(l, r) / max(l, r) · min(t, b) / max(t, b)).
  public var centerness: [Float] {
    positives.indices.map { row in
      func balance(_ axis: Int) -> Float {
        let centre = (anchors[4 * row + axis] + anchors[4 * row + axis + 2]) / 2
        let (before, after) = (
          centre - boxes[4 * row + axis], boxes[4 * row + axis + 2] - centre
        )
        let longer = max(before, after)
        return longer > 0 ? max(0, min(before, after)) / longer : 0
      }
      return (balance(0) * balance(1)).squareRoot()
    }
  }
}

/// Shares out the anchors of one image to its boxes.
protocol DenseAssigner {
  /// - Parameters:
  ///   - boxes: (count, 4), at least one.
  ///   - matches: one per anchor: the box, `Kernels.matchNegative` or `Kernels.matchIgnored`.
  func match(
    boxes: [Float], _ count: Int, grid: DenseGrid, matches: UnsafeMutablePointer<Int32>)
}

extension DenseAssigner {
  /// The targets of a batch.
  func assign(_ grid: DenseGrid, batch: PreparedBatch) throws -> DenseTargets {
    let perImage = grid.count
    let labels = try Tensor(uninitialized: [batch.boxes.count * perImage], dtype: .int64)
    var (positives, counts): ([Int], [Int]) = ([], [])
    var (anchors, boxes, strides): ([Float], [Float], [Float]) = ([], [], [])
    var matches = [Int32](repeating: Kernels.matchNegative, count: max(1, perImage))
    for (image, own) in batch.boxes.enumerated() {
      if own.isEmpty {
        for anchor in 0..<perImage { matches[anchor] = Kernels.matchNegative }
      } else {
        match(boxes: own, own.count / 4, grid: grid, matches: &matches)
      }
      let first = positives.count
      for anchor in 0..<perImage {
        let (row, match) = (image * perImage + anchor, Int(matches[anchor]))
        if match >= 0 {
          labels.integers[row] = batch.labels[image][match]
          positives.append(row)
          anchors += grid.anchors[4 * anchor..<4 * anchor + 4]
          boxes += own[4 * match..<4 * match + 4]
          strides.append(grid.stride(of: anchor))
        } else {
          labels.integers[row] = matches[anchor] == Kernels.matchNegative ? -1 : -2
        }
      }
      counts.append(positives.count - first)
    }
    return DenseTargets(
      labels: labels, positives: positives, anchors: anchors, boxes: boxes, strides: strides,
      counts: counts)
  }
}

/// Matches all anchors by IoU with fixed thresholds; none are sampled (Lin et al. 2017).
struct IoUAssigner: DenseAssigner {
  let rule: MatchRule

  init(_ configuration: RetinaHeadConfiguration) {
    rule = MatchRule(
      high: configuration.positive_iou, low: configuration.negative_iou, allowLowQuality: true)
  }

  func match(
    boxes: [Float], _ count: Int, grid: DenseGrid, matches: UnsafeMutablePointer<Int32>
  ) {
    var overlaps = [Float](repeating: 0, count: max(1, grid.count))
    Kernels.matchAnchors(
      boxes: boxes, count, anchors: grid.anchors, grid.count, rule: rule, matches: matches,
      overlaps: &overlaps)
  }
}

/// Adaptive training sample selection; see `Kernels.matchATSS`.
struct ATSSAssigner: DenseAssigner {
  let candidates: Int

  func match(
    boxes: [Float], _ count: Int, grid: DenseGrid, matches: UnsafeMutablePointer<Int32>
  ) {
    Kernels.matchATSS(
      boxes: boxes, count, anchors: grid.anchors, levels: grid.starts, perLevel: candidates,
      matches: matches)
  }
}

/// Centre sampling; see `Kernels.matchCenters`.
struct CenterAssigner: DenseAssigner {
  let rule: CenterRule

  func match(
    boxes: [Float], _ count: Int, grid: DenseGrid, matches: UnsafeMutablePointer<Int32>
  ) {
    Kernels.matchCenters(
      boxes: boxes, count, anchors: grid.anchors, levels: grid.starts, rule: rule,
      matches: matches)
  }
}
