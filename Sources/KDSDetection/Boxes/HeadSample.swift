import KDSTensor

/// The mini-batch that a head was trained on: what its losses and Chen's distillation terms need.
public struct HeadSample {
  /// (S, K) class logits of the sampled rows, on the tape.
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

  /// Softmax loss: (1/S) Σ −log P(label).
  public func classificationLoss() throws -> Tensor { try logits.crossEntropy(labels) }

  /// Smooth L1 over positives: (1/S) Σ smoothL1(delta − target). 0 without positives.
  public func regressionLoss(beta: Float) throws -> Tensor {
    try normalized(deltas.smoothL1(targets, beta: beta, reduction: .sum))
  }

  /// A sum over positives, divided by the number of sampled rows.
  public func normalized(_ sum: Tensor) throws -> Tensor { try sum.multiplied(by: 1 / normalizer) }
}
