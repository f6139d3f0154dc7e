extension Tensor {
  /// Sum of weighted scalars: Σ weights[i] · terms[i], in order.
  public static func weightedSum(_ terms: [(tensor: Tensor, weight: Float)]) throws -> Tensor {
    var total: Float = 0
    for term in terms {
      guard term.tensor.count == 1 else {
        throw KDSError.shape("weighted_sum: a loss must be a scalar, got \(term.tensor.shape)")
      }
      total += term.weight * term.tensor.item
    }
    let result = try Tensor.scalar(total)
    let weights = terms.map(\.weight)
    let shapes = terms.map(\.tensor.shape)
    return Tape.record(result, "weighted_sum", terms.map(\.tensor)) { incoming in
      try zip(weights, shapes).map { try Tensor(filled: $0 * incoming.item, shape: $1) }
    }
  }
}
