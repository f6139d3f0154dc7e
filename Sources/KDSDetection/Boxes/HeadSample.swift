import KDSTensor

/// The mini-batch that a head was trained on: what its losses and Chen's distillation terms need.
public struct HeadSample {
  /// (S, K) class logits of the sampled rows, on the tape; K = 1 is one sigmoid logit of an object.
  public let logits: Tensor
  /// (S) targets, 0 = background.
  public let labels: Tensor
  /// (P, 4) box offsets of the positives, for their matched class, on the tape.
  public let deltas: Tensor
  /// (P, 4) regression targets, in the units of `deltas`.
  public let targets: Tensor
  /// Rows of the head's full output that were sampled: S anchors, or all regions.
  public let rows: [Int]
  /// Rows of the positives, and the class whose offsets count there (0 when offsets are shared).
  public let positiveRows: [Int]
  public let positiveClasses: [Int]

  /// Divisor of both losses: the number of sampled rows (M or N of Chen et al. 2017, eq. 1).
  public var normalizer: Float { Float(max(1, labels.count)) }

  /// Softmax loss (1/S) Σ −log P(label), or binary cross-entropy for one logit.
  public func classificationLoss() throws -> Tensor {
    if logits.shape[1] > 1 { return try logits.crossEntropy(labels) }
    let goals = try Tensor(uninitialized: logits.shape)
    for row in 0..<labels.count { goals.floats[row] = labels.integers[row] > 0 ? 1 : 0 }
    return try logits.binaryCrossEntropyWithLogits(goals)
  }

  /// Smooth L1 over positives: (1/S) Σ smoothL1(delta − target). 0 without positives.
  public func regressionLoss(beta: Float) throws -> Tensor {
    try normalized(deltas.smoothL1(targets, beta: beta, reduction: .sum))
  }

  /// A sum over positives, divided by the number of sampled rows.
  public func normalized(_ sum: Tensor) throws -> Tensor { try sum.multiplied(by: 1 / normalizer) }
}

/// Rows of two logits (S, 2) from one sigmoid logit z: σ(z) = softmax(0, z). Two-class rows stay.
public func twoClassLogits(_ logits: Tensor) throws -> Tensor {
  if logits.shape[1] != 1 { return logits }
  return try Tensor.concatenated([Tensor.zeros(logits.shape), logits], axis: 1)
}
