extension Reference {
  /// Pairwise IoU of (n, 4) and (m, 4) boxes x1 y1 x2 y2.
  public static func boxIoU(_ a: [Float], _ b: [Float]) -> [Float] {
    var out: [Float] = []
    for i in stride(from: 0, to: a.count, by: 4) {
      for j in stride(from: 0, to: b.count, by: 4) {
        let width = max(min(a[i + 2], b[j + 2]) - max(a[i], b[j]), 0)
        let height = max(min(a[i + 3], b[j + 3]) - max(a[i + 1], b[j + 1]), 0)
        let own = (a[i + 2] - a[i]) * (a[i + 3] - a[i + 1])
        let other = (b[j + 2] - b[j]) * (b[j + 3] - b[j + 1])
        out.append(width * height / (own + other - width * height))
      }
    }
    return out
  }

  /// Non-maximum suppression from its definition; ties by index, NaN scores left out.
  public static func nms(boxes: [Float], scores: [Float], threshold: Float) -> [Int] {
    let n = scores.count
    let iou = boxIoU(boxes, boxes)
    let order = (0..<n).filter { !scores[$0].isNaN }.sorted {
      scores[$0] != scores[$1] ? scores[$0] > scores[$1] : $0 < $1
    }
    var kept: [Int] = []
    for i in order where !kept.contains(where: { iou[$0 * n + i] > threshold }) { kept.append(i) }
    return kept
  }
}
