import KDSKernels

extension Tensor {
  /// Sigmoid focal loss with a label per row instead of dense targets, summed per group of rows with a
  /// factor for each: Σ_g factor_g Σ_{rows of g} Σ_c α_t (1 − p_t)^γ (−log p_t).
  ///
  /// - Shapes: self (G·M, C), groups one after another; labels (G·M): the positive column, -1 for
  ///   background, anything else leaves the row out; factors (G). The result is a scalar.
  public func sigmoidFocal(
    labels: Tensor, factors: [Float], alpha: Float = 0.25, gamma: Float = 2
  ) throws -> Tensor {
    let name = "sigmoid_focal"
    let logits = try lossRows(name, self)
    try requireIntegers(name, "labels", labels)
    let (rows, columns) = (logits.shape[0], logits.shape[1])
    guard labels.shape == [rows], !factors.isEmpty, rows % factors.count == 0 else {
      throw KDSError.shape(
        "\(name): logits \(shape), labels \(labels.shape) and \(factors.count) groups do not go together"
      )
    }
    let part = rows / factors.count
    let gradient = Tape.tracks([logits]) ? try logits.uninitializedLike() : nil
    var total = 0.0
    for (group, factor) in factors.enumerated() {
      let first = group * part
      total +=
        Double(factor)
        * Kernels.sigmoidFocal(
          logits: logits.floats + first * columns, labels: labels.integers + first, rows: part,
          columns: columns, alpha: alpha, gamma: gamma, scale: factor,
          gradient: gradient.map { $0.floats + first * columns })
    }
    let result = try Tensor.scalar(Float(total))
    guard let gradient else { return result }
    return Tape.record(result, name, [logits]) { incoming in
      [incoming.item == 1 ? gradient : try gradient.multiplied(by: incoming.item)]
    }
  }
}
