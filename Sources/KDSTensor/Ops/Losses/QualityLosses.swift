import KDSKernels

extension Tensor {
  /// Quality focal loss (Li et al. 2020, "Generalized Focal Loss", eq. 4) of logits x with soft targets
  /// t: |sigma(x) - t|^beta BCE(x, t), with the gradient through the modulating factor, which is 0
  /// by convention at its kink sigma(x) = t. CrossKD and BCKD take it with beta 1 and a teacher's
  /// sigmoid for t; beta 0 gives binary cross-entropy.
  ///
  /// - Shapes: self and targets (P, C) or (N, C, …); weights of the same shape, (P), or one per
  ///   place, (N, 1, …). Gradient to self only.
  /// - Parameters:
  ///   - kind: whether the targets are numbers in 0...1, or logits whose sigmoid is meant.
  ///   - temperature: divides the logits, on both sides where both are logits.
  /// - Note: "mean" (and "paper") is over all elements, "none" gives one value per entry of the first
  ///   axis; an empty tensor gives 0.
  public func qualityFocal(
    _ targets: Tensor, weights: Tensor? = nil, beta: Float = 2, kind: SoftTargets = .probabilities,
    temperature: Float = 1, reduction: Reduction = .mean
  ) throws -> Tensor {
    let name = "quality_focal"
    guard beta >= 0, beta.isFinite, temperature > 0, temperature.isFinite else {
      throw KDSError.argument(
        "\(name): beta \(beta) must be at least 0 and temperature \(temperature) positive")
    }
    guard rank >= 1 else { throw KDSError.shape("\(name): logits must be (P, C), not one number") }
    let (logits, goals) = try lossPair(name, try plain(), targets.detached())
    let factors = try weights.map { try sharedWeights(name, $0, of: shape) }
    let rows = shape[0]
    let columns = rows > 0 ? count / rows : 1
    let loss = FusedLoss(
      name: name, student: logits, rows: rows, columns: columns, shape: [rows]
    ) { range, scale, gradient in
      let first = range.lowerBound * columns
      return Kernels.qualityFocal(
        logits.floats + first, goals.floats + first, range.count * columns, beta: beta, kind: kind,
        temperature: temperature, weights: factors?.from(row: range.lowerBound), scale: scale,
        gradient: gradient)
    }
    switch reduction {
    case .mean, .paper: return try loss.reduced(factor: count > 0 ? 1 / Double(count) : 0)
    case .sum, .none: return try loss.reduced(reduction)
    }
  }

  /// Quality focal loss with one label and its quality per row, times `factor`.
  ///
  /// - Shapes: self (P, C), one column per foreground class; labels int64 (P): the column whose target
  ///   is the quality, -1 for background, anything else leaves the row out; qualities (P) in 0...1.
  /// - Parameter factor: 1 over the number of positives, in GFL. The result is a scalar.
  public func qualityFocal(
    labels: Tensor, qualities: Tensor, beta: Float = 2, factor: Double = 1
  ) throws -> Tensor {
    let name = "quality_focal"
    let logits = try lossRows(name, self)
    try requireIntegers(name, "labels", labels)
    try requireFloats(name, [qualities])
    let (rows, columns) = (logits.shape[0], logits.shape[1])
    guard labels.shape == [rows], qualities.shape == [rows] else {
      throw KDSError.shape(
        "\(name): logits \(shape), labels \(labels.shape) and qualities \(qualities.shape) do not go "
          + "together")
    }
    guard beta >= 0, beta.isFinite else {
      throw KDSError.argument("\(name): beta \(beta) must be at least 0")
    }
    return try FusedLoss(
      name: name, student: logits, rows: rows, columns: columns, shape: [rows]
    ) { range, scale, gradient in
      Kernels.qualityFocal(
        logits: logits.floats + range.lowerBound * columns,
        labels: labels.integers + range.lowerBound,
        qualities: qualities.floats + range.lowerBound, rows: range.count, columns: columns,
        beta: beta, scale: scale, gradient: gradient)
    }.reduced(factor: factor)
  }

  /// Distribution focal loss (Li et al. 2020, eq. 6) of the bins of box edges (self) with real targets
  /// y: - (l + 1 - y) log P(l) - (y - l) log P(l + 1), l = floor(y), P = softmax.
  ///
  /// - Shapes: self (R, bins), a row per edge; targets (R) in 0...bins - 1, in bins; weights (R) or
  ///   nil for 1. Gradient to self only.
  /// - Note: "paper" divides by the sum of the weights, "mean" by the number of rows; 0 gives 0.
  public func distributionFocal(
    _ targets: Tensor, weights: Tensor? = nil, reduction: Reduction = .paper
  ) throws -> Tensor {
    let name = "distribution_focal"
    let logits = try lossRows(name, self)
    let (rows, bins) = (shape[0], shape[1])
    try requireFloats(name, [targets] + (weights.map { [$0] } ?? []))
    try requireSameShape(name, "targets and edges", targets.shape, [rows])
    if let weights { try requireSameShape(name, "weights and edges", weights.shape, [rows]) }
    for row in 0..<rows {
      let y = targets.floats[row]
      if !(y >= 0 && y <= Float(bins - 1)) {
        throw KDSError.argument("\(name): target \(y) of row \(row) is not in 0...\(bins - 1)")
      }
    }
    let loss = FusedLoss(
      name: name, student: logits, rows: rows, columns: bins, shape: [rows]
    ) { range, scale, gradient in
      Kernels.distributionFocal(
        logits.floats + range.lowerBound * bins, targets.floats + range.lowerBound,
        rows: range.count, bins: bins,
        weights: weights.map { UnsafePointer($0.floats + range.lowerBound) }, scale: scale,
        gradient: gradient)
    }
    guard reduction == .paper, let weights else { return try loss.reduced(reduction) }
    let total = Kernels.total(weights.floats, rows)
    return try loss.reduced(factor: total > 0 ? 1 / total : 0)
  }
}

/// Weights of the elements of an array, kept alive, from any entry of its first axis on.
struct RowWeights {
  let tensor: Tensor
  let channels, inner: Int

  func from(row: Int) -> SharedWeights {
    SharedWeights(tensor.floats + row * inner, channels: channels, inner: max(inner, 1))
  }
}

/// Weights for an array (N, C, …): of its shape, (N), or (N, 1, …).
func sharedWeights(_ name: String, _ weights: Tensor, of shape: [Int]) throws -> RowWeights {
  try requireFloats(name, [weights])
  let tensor = try weights.plain()
  let columns = shape.dropFirst().reduce(1, *)
  if tensor.shape == shape { return RowWeights(tensor: tensor, channels: 1, inner: columns) }
  if tensor.shape == [shape[0]] { return RowWeights(tensor: tensor, channels: columns, inner: 1) }
  guard shape.count >= 2, tensor.shape == [shape[0], 1] + shape[2...] else {
    throw KDSError.shape(
      "\(name): weights \(tensor.shape) do not go with logits \(shape); they must have that shape, "
        + "[\(shape[0])], or 1 for the second size")
  }
  return RowWeights(tensor: tensor, channels: shape[1], inner: columns / max(shape[1], 1))
}
