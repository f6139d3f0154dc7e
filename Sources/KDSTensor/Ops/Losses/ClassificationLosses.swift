import KDSKernels

extension Tensor {
  /// Softmax cross-entropy of logits with class labels, as `torch.nn.functional.cross_entropy`.
  ///
  /// value of a row = w[label] · (log sum_c e^z_c - z_label). "mean" (and "paper") divides by the sum
  /// of the weights of the rows that count; rows labelled `ignoreIndex` do not. No such row gives 0.
  /// - Shapes: logits (N, C) or (N, C, d…); labels int64 (N) or (N, d…); classWeights (C).
  /// - Throws: `KDSError.argument` for a label that is neither a class nor `ignoreIndex`.
  public func crossEntropy(
    _ labels: Tensor, classWeights: Tensor? = nil, ignoreIndex: Int64 = -100,
    reduction: Reduction = .mean
  ) throws -> Tensor {
    let name = "cross_entropy"
    try requireFloats(name, [self] + (classWeights.map { [$0] } ?? []))
    try requireIntegers(name, "labels", labels)
    guard rank >= 2, shape[1] > 0, labels.shape == [shape[0]] + shape[2...],
      classWeights == nil || classWeights!.shape == [shape[1]]
    else {
      throw KDSError.shape(
        "\(name): logits (N, C, …) \(shape), labels (N, …) \(labels.shape) and class weights (C) "
          + "\(classWeights?.shape ?? []) do not go together")
    }
    let columns = shape[1]
    let classesLast = rank == 2 ? self : try permuted([0] + Array(2..<rank) + [1])
    let logits = try classesLast.reshaped([labels.count, columns])
    if let row = Kernels.firstInvalidLabel(
      labels.integers, labels.count, classes: columns, ignoreIndex: ignoreIndex)
    {
      throw KDSError.argument(
        "\(name): label \(labels.integers[row]) of row \(row) is not a class in 0..<\(columns)")
    }
    let weights = try rowWeights(labels, classWeights, ignoreIndex)
    let loss = FusedLoss(
      name: name, student: logits, rows: labels.count, columns: columns, shape: labels.shape
    ) { range, scale, gradient in
      Kernels.softmaxCrossEntropy(
        logits: logits.floats + range.lowerBound * columns,
        labels: labels.integers + range.lowerBound, rows: range.count, columns: columns,
        ignoreIndex: ignoreIndex, rowWeights: weights.floats + range.lowerBound, scale: scale,
        gradient: gradient)
    }
    if reduction == .none || reduction == .sum { return try loss.reduced(reduction) }
    let total = Kernels.total(weights.floats, weights.count)
    return try loss.reduced(factor: total > 0 ? 1 / total : 0)
  }

  /// Binary cross-entropy of logits x with targets t in 0...1:
  /// w · (max(x, 0) - x t + log(1 + e^-|x|)). Gradient to the logits only.
  ///
  /// - Shapes: targets and weights have the shape of the logits. "mean" (and "paper") is over all
  ///   elements, as in PyTorch; an empty tensor gives 0.
  public func binaryCrossEntropyWithLogits(
    _ targets: Tensor, weights: Tensor? = nil, reduction: Reduction = .mean
  ) throws -> Tensor {
    let name = "binary_cross_entropy"
    let (logits, goals) = try plainPair(name, targets)
    let factors = try weights.map { try plainPair(name, $0).1 }
    return try FusedLoss(
      name: name, student: logits, rows: count, columns: 1, shape: shape
    ) { range, scale, gradient in
      Kernels.binaryCrossEntropyWithLogits(
        logits.floats + range.lowerBound, goals.floats + range.lowerBound, range.count,
        weights: factors.map { UnsafePointer($0.floats + range.lowerBound) }, scale: scale,
        gradient: gradient)
    }.reduced(reduction)
  }

  /// Sigmoid focal loss (Lin et al. 2017; `torchvision.ops.sigmoid_focal_loss`) with 0/1 targets:
  /// alpha_t (1 - p_t)^gamma (-log p_t). Gradient to the logits only.
  ///
  /// - Parameter alpha: weight of positives, 1 - alpha of negatives; negative for no weighting.
  /// - Note: "mean" (and "paper") is over all elements; detectors take "sum" and divide by the number
  ///   of positives.
  public func sigmoidFocal(
    _ targets: Tensor, alpha: Float = 0.25, gamma: Float = 2, reduction: Reduction = .mean
  ) throws -> Tensor {
    let name = "sigmoid_focal"
    guard gamma >= 0, gamma.isFinite, alpha <= 1 else {
      throw KDSError.argument(
        "\(name): gamma \(gamma) must be at least 0 and alpha \(alpha) at most 1")
    }
    let (logits, goals) = try plainPair(name, targets)
    return try FusedLoss(
      name: name, student: logits, rows: count, columns: 1, shape: shape
    ) { range, scale, gradient in
      Kernels.sigmoidFocal(
        logits.floats + range.lowerBound, goals.floats + range.lowerBound, range.count,
        alpha: alpha, gamma: gamma, scale: scale, gradient: gradient)
    }.reduced(reduction)
  }

  /// The weight of each label: its class's, or 0 for ignored ones.
  private func rowWeights(
    _ labels: Tensor, _ classWeights: Tensor?, _ ignoreIndex: Int64
  ) throws -> Tensor {
    let result = try Tensor(uninitialized: [labels.count])
    for row in 0..<labels.count {
      let label = labels.integers[row]
      let counts = label != ignoreIndex
      result.floats[row] = counts ? classWeights?.floats[Int(label)] ?? 1 : 0
    }
    return result
  }

  /// This tensor and a companion of the same shape, both plain: for losses that padding would add to.
  private func plainPair(_ name: String, _ other: Tensor) throws -> (Tensor, Tensor) {
    let (a, b) = try lossPair(name, try plain(), other)
    return (a, b.detached())
  }
}
