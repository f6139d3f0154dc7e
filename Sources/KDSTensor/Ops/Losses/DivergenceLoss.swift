import KDSKernels

extension Tensor {
  /// T² KL(softmax(z_t / T) || softmax(z_s / T)) of every row of the last axis, summed over its
  /// columns: Hinton et al. 2015; the bins of a box edge in LD (Zheng et al. 2022) and CrossKD.
  /// Gradient to the student (self) only: T (P_s - P_t).
  ///
  /// - Shapes: self and teacher (…, C) with at least one axis; weights: any number of the leading
  ///   axes, each weight for all rows below it.
  /// - Note: "mean" (and "paper") divides by the number of rows; no rows give 0.
  public func divergence(
    teacher: Tensor, weights: Tensor? = nil, temperature: Float = 1, reduction: Reduction = .mean
  ) throws -> Tensor {
    let name = "divergence"
    guard let columns = shape.last, columns > 0 else {
      throw KDSError.shape("\(name): logits \(shape) must be (…, C) with C > 0")
    }
    guard temperature > 0, temperature.isFinite else {
      throw KDSError.argument("\(name): temperature must be positive, not \(temperature)")
    }
    let (logits, target) = try lossPair(name, try plain(), teacher.detached())
    let rows = count / columns
    var group = 1
    if let weights {
      try requireFloats(name, [weights])
      let leading = Array(shape.dropLast())
      guard weights.rank <= leading.count, weights.shape == Array(leading[..<weights.rank]) else {
        throw KDSError.shape(
          "\(name): weights \(weights.shape) are not for the leading axes of logits \(shape)")
      }
      group = max(1, leading[weights.rank...].reduce(1, *))
    }
    let factors = try weights?.detached().plain()
    return try FusedLoss(
      name: name, student: logits, rows: rows, columns: columns, shape: Array(shape.dropLast())
    ) { range, scale, gradient in
      // A range of one row (no reduction) starts inside a group.
      let single = range.count == 1
      let first = range.lowerBound / group
      return Kernels.divergence(
        student: logits.floats + range.lowerBound * columns,
        teacher: target.floats + range.lowerBound * columns, rows: range.count, columns: columns,
        temperature: temperature, weights: factors.map { UnsafePointer($0.floats + first) },
        group: single ? 1 : group, scale: scale, gradient: gradient)
    }.reduced(reduction)
  }
}
