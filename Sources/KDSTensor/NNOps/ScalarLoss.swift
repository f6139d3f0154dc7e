import KDSKernels

extension Tensor {
  /// A scalar whose gradient with respect to `self` is known at once: how losses compute value and
  /// gradient in one pass over memory.
  ///
  /// - Parameter compute: gets the buffer for d(value)/d(self), in the layout of `self`, or nil when
  ///   nobody will ask; returns the value.
  public func scalarLoss(
    _ name: String, _ compute: (UnsafeMutablePointer<Float>?) -> Double
  ) throws -> Tensor {
    guard Tape.tracks([self]) else { return try Tensor.scalar(Float(compute(nil))) }
    let saved = try Tensor(uninitialized: shape, layout: layout)
    let result = try Tensor.scalar(Float(compute(saved.floats)))
    return Tape.record(result, name, [self]) { incoming in
      let factor = incoming.item
      if factor == 1 { return [saved] }
      let scaled = try Tensor(uninitialized: saved.shape, layout: saved.layout)
      Kernels.scale(saved.floats, by: factor, scaled.floats, saved.storedCount)
      return [scaled]
    }
  }

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
