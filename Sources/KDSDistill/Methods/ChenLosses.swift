import KDSDetection
import KDSKernels
import KDSTensor

/// The distillation terms of Chen et al. 2017 on one head's mini-batch. Teacher values come as plain
/// numbers: no gradient can reach them.
enum ChenLosses {
  /// Eq. 2 and 3: L_soft = −(1/S) Σ_rows Σ_c w_c P_t(c) log P_s(c), P = softmax(z / T).
  ///
  /// - Shapes: teacher (S, K), row for row the sample's logits.
  static func softClassification(
    _ sample: HeadSample, teacher: Tensor, backgroundWeight: Float, temperature: Float
  ) throws -> Tensor {
    let student = sample.logits
    guard teacher.shape == student.shape else {
      throw KDSError.shape(
        "chen2017: student logits \(student.shape) and teacher logits \(teacher.shape) must agree")
    }
    let (rows, classes) = (student.shape[0], student.shape[1])
    var weights = [Float](repeating: 1, count: classes)
    weights[0] = backgroundWeight
    let scale = 1 / sample.normalizer
    return try student.scalarLoss("weighted_soft_cross_entropy") { gradient in
      Double(scale)
        * Kernels.weightedSoftCrossEntropy(
          student: student.floats, teacher: teacher.floats, rows: rows, columns: classes,
          classWeights: weights, temperature: temperature, scale: scale, gradient: gradient)
    }
  }

  /// Eq. 4: L_b = (1/S) Σ over positives of ‖R_s − y‖² where ‖R_s − y‖² + m > ‖R_t − y‖², else 0.
  static func boundedRegression(
    _ sample: HeadSample, teacher: Tensor, margin: Float
  ) throws -> Tensor {
    let student = sample.deltas
    try check(student, teacher)
    let scale = 1 / sample.normalizer
    return try student.scalarLoss("teacher_bounded_regression") { gradient in
      Double(scale)
        * Kernels.teacherBoundedRegression(
          student: student.floats, teacher: teacher.floats, target: sample.targets.floats,
          student.shape[0], margin: margin, scale: scale, gradient: gradient)
    }
  }

  /// The ablation "L2" of Table 4: (1/S) Σ over positives of ‖R_s − R_t‖².
  static func regressionToTeacher(_ sample: HeadSample, teacher: Tensor) throws -> Tensor {
    let student = sample.deltas
    try check(student, teacher)
    let scale = 1 / sample.normalizer
    return try student.scalarLoss("regression_to_teacher") { gradient in
      Double(scale)
        * Kernels.squaredDifference(
          student.floats, teacher.floats, student.count, scale: scale, gradient: gradient)
    }
  }

  /// Eq. 5 and 6: ‖V − Z‖² or ‖V − Z‖₁ between the adapted student map and the teacher's, as a mean
  /// over elements or as the raw sum. Both maps in one layout: padded channels are zero on both sides.
  static func hint(
    student: Tensor, teacher: Tensor, absolute: Bool, mean: Bool
  ) throws -> Tensor {
    guard student.shape == teacher.shape else {
      throw KDSError.shape("hint: student \(student.shape) and teacher \(teacher.shape) must agree")
    }
    let target = try Tape.withoutGrad { try teacher.inLayout(student.layout) }
    let scale: Float = mean ? 1 / Float(max(1, student.count)) : 1
    return try student.scalarLoss("hint") { gradient in
      let stored = student.storedCount
      let sum =
        absolute
        ? Kernels.absoluteDifference(
          student.floats, target.floats, stored, scale: scale, gradient: gradient)
        : Kernels.squaredDifference(
          student.floats, target.floats, stored, scale: scale, gradient: gradient)
      return Double(scale) * sum
    }
  }

  private static func check(_ student: Tensor, _ teacher: Tensor) throws {
    guard student.shape == teacher.shape else {
      throw KDSError.shape(
        "chen2017: student offsets \(student.shape) and teacher offsets \(teacher.shape) must agree")
    }
  }
}
