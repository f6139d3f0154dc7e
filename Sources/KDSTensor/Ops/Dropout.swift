import KDSKernels

extension Tensor {
  /// Each element 0 with the given probability and divided by (1 - probability) otherwise.
  ///
  /// The mask depends on `seed`, `stream` and the element's position in row-major order alone. At
  /// inference use the input itself: this operation always drops.
  /// - Throws: `KDSError.argument` for a probability outside 0...1.
  public func dropout(probability: Float, seed: UInt64, stream: UInt64 = 0) throws -> Tensor {
    if layout == .half {
      return try widened().dropout(probability: probability, seed: seed, stream: stream)
    }
    try requireFloats("dropout", [self])
    guard (0...1).contains(probability) else {
      throw KDSError.argument("dropout: probability must be in 0...1, not \(probability)")
    }
    if probability == 0 { return self }
    // The mask is drawn in plain order, so that a run does not depend on the processor's layout.
    let drawn = try Tensor(uninitialized: shape)
    Kernels.fillDropout(
      drawn.floats, count, probability: probability, seed: seed, stream: stream)
    let mask = try Tape.withoutGrad { try drawn.inLayout(layout) }
    let result = try uninitializedLike()
    Kernels.multiply(floats, mask.floats, result.floats, storedCount)
    return Tape.record(result, "dropout", [self]) { gradient in
      let toSource = try gradient.uninitializedLike()
      Kernels.multiply(gradient.floats, mask.floats, toSource.floats, toSource.storedCount)
      return [toSource]
    }
  }
}
