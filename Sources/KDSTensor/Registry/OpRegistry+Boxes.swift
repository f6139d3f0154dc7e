import KDSKernels

private struct NMSOptions: Codable {
  var threshold: Float = 0.5
  var maxOutput: Int?
  enum CodingKeys: String, CodingKey { case threshold = "iou_threshold", maxOutput = "max_output" }
}

private struct MatchOptions: Codable {
  var high: Float = 0.7
  var low: Float = 0.3
  var allowLowQuality = true
  enum CodingKeys: String, CodingKey {
    case high, low, allowLowQuality = "allow_low_quality"
  }
}

extension OpRegistry {
  static let boxes: [OpEntry] = [
    OpEntry("nms", 2...2, NMSOptions(), "int64 indices kept: boxes (N, 4), scores (N)") {
      try BoxOps.nms($0[0], $0[1], threshold: $1.threshold, maxOutput: $1.maxOutput ?? .max)
    },
    OpEntry(
      "batched_nms", 3...3, NMSOptions(), "nms per label: boxes (N, 4), scores (N), labels (N)"
    ) {
      try BoxOps.batchedNMS(
        $0[0], $0[1], $0[2], threshold: $1.threshold, maxOutput: $1.maxOutput ?? .max)
    },
    OpEntry(
      "match_boxes", 2...2, MatchOptions(),
      "int64 box of each anchor, -1 negative, -2 between: boxes (M, 4), anchors (N, 4)"
    ) {
      try BoxOps.match(
        $0[0], $0[1],
        rule: MatchRule(high: $1.high, low: $1.low, allowLowQuality: $1.allowLowQuality))
    },
    OpEntry("box_iou", 2...2, "IoU of all pairs: (N, 4), (M, 4) to (N, M)") {
      try BoxOps.iou($0[0], $0[1])
    },
    OpEntry("generalized_box_iou", 2...2, "GIoU of all pairs: (N, 4), (M, 4) to (N, M)") {
      try BoxOps.generalizedIoU($0[0], $0[1])
    },
  ]
}
