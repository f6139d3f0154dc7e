private struct ReductionOptions: Codable {
  var reduction = Reduction.mean
}

private struct SmoothL1Options: Codable {
  var beta: Float = 1
  var reduction = Reduction.mean
}

private struct CrossEntropyOptions: Codable {
  var ignoreIndex: Int64 = -100
  var reduction = Reduction.mean
  enum CodingKeys: String, CodingKey { case ignoreIndex = "ignore_index", reduction }
}

private struct FocalOptions: Codable {
  var alpha: Float = 0.25
  var gamma: Float = 2
  var reduction = Reduction.mean
}

private struct GIoUOptions: Codable {
  var eps: Float = 1e-7
  var reduction = Reduction.mean
}

private struct SoftCrossEntropyOptions: Codable {
  /// Weight of class 0 when no class weights are given; 1.5 in the paper.
  var backgroundWeight: Float = 1.5
  var temperature: Float = 1
  var reduction = Reduction.paper
  enum CodingKeys: String, CodingKey {
    case backgroundWeight = "background_weight"
    case temperature, reduction
  }

  func classWeights(_ classes: Int) throws -> Tensor? {
    if classes < 1 || backgroundWeight == 1 { return nil }
    let weights = try Tensor(filled: 1, shape: [classes])
    weights.floats[0] = backgroundWeight
    return weights
  }
}

private struct BoundedOptions: Codable {
  var margin: Float = 0
  var reduction = Reduction.paper
}

private struct HintOptions: Codable {
  var distance = HintDistance.l2
  var reduction = Reduction.paper
}

extension OpRegistry {
  static let losses: [OpEntry] = [
    OpEntry("mse", 2...2, ReductionOptions(), "squared error; gradients to both") {
      try $0[0].squaredError($0[1], reduction: $1.reduction)
    },
    OpEntry("l1", 2...2, ReductionOptions(), "absolute error; gradients to both") {
      try $0[0].absoluteError($0[1], reduction: $1.reduction)
    },
    OpEntry("smooth_l1", 2...2, SmoothL1Options(), "smooth L1 of prediction and target") {
      try $0[0].smoothL1($0[1], beta: $1.beta, reduction: $1.reduction)
    },
    OpEntry(
      "cross_entropy", 2...3, CrossEntropyOptions(),
      "softmax cross-entropy: logits (N, C, ...), int64 labels, class weights"
    ) {
      try $0[0].crossEntropy(
        $0[1], classWeights: $0.optional(2), ignoreIndex: $1.ignoreIndex, reduction: $1.reduction)
    },
    OpEntry(
      "binary_cross_entropy", 2...3, ReductionOptions(),
      "binary cross-entropy with logits: logits, targets in 0...1, weights"
    ) {
      try $0[0].binaryCrossEntropyWithLogits(
        $0[1], weights: $0.optional(2), reduction: $1.reduction)
    },
    OpEntry("sigmoid_focal", 2...2, FocalOptions(), "focal loss: logits, 0/1 targets") {
      try $0[0].sigmoidFocal(
        $0[1], alpha: $1.alpha, gamma: $1.gamma, reduction: $1.reduction)
    },
    OpEntry("giou", 2...3, GIoUOptions(), "1 - GIoU of box pairs: boxes, targets, weights") {
      try $0[0].giou($0[1], weights: $0.optional(2), eps: $1.eps, reduction: $1.reduction)
    },
    OpEntry(
      "weighted_soft_cross_entropy", 2...3, SoftCrossEntropyOptions(),
      "Chen 2017 eq. 2-3: student logits, teacher logits, class weights"
    ) {
      let classes = $0[0].rank == 2 ? $0[0].shape[1] : 0
      return try $0[0].weightedSoftCrossEntropy(
        teacher: $0[1], classWeights: $0.optional(2) ?? $1.classWeights(classes),
        temperature: $1.temperature, reduction: $1.reduction)
    },
    OpEntry(
      "teacher_bounded_regression", 3...3, BoundedOptions(),
      "Chen 2017 eq. 4: student deltas, teacher deltas, targets, all (P, 4)"
    ) {
      try $0[0].teacherBoundedRegression(
        teacher: $0[1], targets: $0[2], margin: $1.margin, reduction: $1.reduction)
    },
    OpEntry("hint", 2...2, HintOptions(), "Chen 2017 eq. 5-6: student map, teacher map") {
      try $0[0].hint(teacher: $0[1], distance: $1.distance, reduction: $1.reduction)
    },
  ]
}
