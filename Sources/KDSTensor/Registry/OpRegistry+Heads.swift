import KDSKernels

private struct QualityOptions: Codable {
  var beta: Float = 2
  /// Whether the targets are logits whose sigmoid is meant.
  var targetLogits = false
  var temperature: Float = 1
  var reduction = Reduction.mean
  enum CodingKeys: String, CodingKey {
    case beta, temperature, reduction
    case targetLogits = "target_logits"
  }
}

private struct DistributionOptions: Codable {
  var reduction = Reduction.paper
}

private struct DivergenceOptions: Codable {
  var temperature: Float = 1
  var reduction = Reduction.mean
}

private struct LogIoUOptions: Codable {
  var eps: Float = 1e-6
  var reduction = Reduction.mean
}

private struct StandardizeOptions: Codable {
  var eps: Float = 1e-6
}

extension OpRegistry {
  /// Losses between the outputs of heads.
  static let headLosses: [OpEntry] = [
    OpEntry(
      "quality_focal", 2...3, QualityOptions(),
      "|sigma(x) - t|^beta BCE(x, t): logits, targets in 0...1 or logits, weights"
    ) {
      try $0[0].qualityFocal(
        $0[1], weights: $0.optional(2), beta: $1.beta,
        kind: $1.targetLogits ? .logits : .probabilities, temperature: $1.temperature,
        reduction: $1.reduction)
    },
    OpEntry(
      "distribution_focal", 2...3, DistributionOptions(),
      "distribution focal loss: bins (R, C), targets (R) in 0...C - 1, weights (R)"
    ) {
      try $0[0].distributionFocal(
        $0[1], weights: $0.optional(2), reduction: $1.reduction)
    },
    OpEntry(
      "divergence", 2...3, DivergenceOptions(),
      "T² KL of the softmax of teacher and student over the last axis: student, teacher, weights"
    ) {
      try $0[0].divergence(
        teacher: $0[1], weights: $0.optional(2), temperature: $1.temperature,
        reduction: $1.reduction)
    },
    OpEntry("log_iou", 2...3, LogIoUOptions(), "- log IoU of box pairs: boxes, targets, weights") {
      try $0[0].logIoU($0[1], weights: $0.optional(2), eps: $1.eps, reduction: $1.reduction)
    },
    OpEntry(
      "standardize_like", 2...2, StandardizeOptions(),
      "each channel with the mean and deviation of another map: x, other (N, C, H, W)"
    ) {
      try $0[0].standardizedLike($0[1], eps: $1.eps)
    },
    OpEntry("pairwise_distance", 1...1, "Euclidean distances of the rows of (K, D)") {
      try $0[0].pairwiseDistances()
    },
  ]
}
