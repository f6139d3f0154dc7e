import KDSKernels

/// How far a student's feature map is from the teacher's: Chen et al. 2017, eq. 5 and 6.
public enum HintDistance: String, Codable, CaseIterable {
  /// ‖V - Z‖²
  case l2
  /// ‖V - Z‖₁
  case l1
}

extension Tensor {
  /// Weighted soft cross-entropy of Chen et al. 2017, eq. 2 and 3, of student logits (self):
  /// L = - sum_c w_c P_t(c) log P_s(c), with P = softmax(z / temperature).
  ///
  /// Gradient to the student only: (P_s(k) · sum_c w_c P_t(c) - w_k P_t(k)) / temperature. The value
  /// is a cross-entropy: it is not 0 when student and teacher agree.
  /// - Shapes: self and teacher (N, C); classWeights (C), nil for 1; in the paper 1.5 for the
  ///   background (class 0) and 1 for the others, temperature 1.
  /// - Note: "paper" and "mean" divide the sum by the number of samples N; no samples give 0. No
  ///   factor temperature² is applied: the paper has none.
  public func weightedSoftCrossEntropy(
    teacher: Tensor, classWeights: Tensor? = nil, temperature: Float = 1,
    reduction: Reduction = .paper
  ) throws -> Tensor {
    let name = "weighted_soft_cross_entropy"
    let logits = try lossRows(name, self)
    let (rows, columns) = (shape[0], shape[1])
    let target = try lossRows(name, teacher.detached())
    try requireSameShape(name, "student and teacher logits", shape, teacher.shape)
    if let classWeights {
      try requireFloats(name, [classWeights])
      try requireSameShape(name, "class weights and classes", classWeights.shape, [columns])
    }
    guard temperature > 0, temperature.isFinite else {
      throw KDSError.argument("\(name): temperature must be positive, not \(temperature)")
    }
    return try FusedLoss(
      name: name, student: logits, rows: rows, columns: columns, shape: [rows]
    ) { range, scale, gradient in
      Kernels.weightedSoftCrossEntropy(
        student: logits.floats + range.lowerBound * columns,
        teacher: target.floats + range.lowerBound * columns, rows: range.count, columns: columns,
        classWeights: classWeights.map { UnsafePointer($0.floats) }, temperature: temperature,
        scale: scale, gradient: gradient)
    }.reduced(reduction)
  }

  /// Teacher-bounded regression of Chen et al. 2017, eq. 4, of student box offsets (self). Per row,
  /// with e = ‖R - y‖² over the 4 offsets: L_b = e_s if e_s + margin > e_t (strictly), else 0.
  ///
  /// Gradient to the student only: 2 (R_s - y) for rows that count. The comparison passes none, and
  /// the term pulls towards the target y, never towards the teacher.
  /// - Shapes: self, teacher and targets (P, 4): matched positives, all in the same units.
  /// - Note: "paper" and "mean" sum over coordinates and rows and divide by the number of rows P; no
  ///   rows give 0, not NaN.
  public func teacherBoundedRegression(
    teacher: Tensor, targets: Tensor, margin: Float = 0, reduction: Reduction = .paper
  ) throws -> Tensor {
    let name = "teacher_bounded_regression"
    let deltas = try lossRows(name, self, columns: 4)
    let bound = try lossRows(name, teacher.detached(), columns: 4)
    let goal = try lossRows(name, targets.detached(), columns: 4)
    try requireSameShape(name, "student and teacher", shape, teacher.shape)
    try requireSameShape(name, "student and targets", shape, targets.shape)
    guard margin.isFinite else {
      throw KDSError.argument("\(name): margin must be a finite number, not \(margin)")
    }
    return try FusedLoss(
      name: name, student: deltas, rows: shape[0], columns: 4, shape: [shape[0]]
    ) { range, scale, gradient in
      let first = 4 * range.lowerBound
      return Kernels.teacherBoundedRegression(
        student: deltas.floats + first, teacher: bound.floats + first, target: goal.floats + first,
        range.count, margin: margin, scale: scale, gradient: gradient)
    }.reduced(reduction)
  }

  /// Hint loss of Chen et al. 2017 between the adapted student map V (self) and the teacher map Z:
  /// ‖V - Z‖² (eq. 5) or ‖V - Z‖₁ (eq. 6). Gradient to the student only.
  ///
  /// - Shapes: equal, any rank; blocked maps are read as they are.
  /// - Note: the paper prints no normalisation and leaves the final distance open. Here "paper" and
  ///   "mean" divide by the number of elements, which keeps the published weight gamma = 0.5 useful
  ///   for maps of any size; "sum" is the raw norm as printed.
  public func hint(
    teacher: Tensor, distance: HintDistance = .l2, reduction: Reduction = .paper
  ) throws -> Tensor {
    switch distance {
    case .l2: return try squaredError(teacher.detached(), reduction: reduction)
    case .l1: return try absoluteError(teacher.detached(), reduction: reduction)
    }
  }
}
