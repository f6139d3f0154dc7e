import Glibc
import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

private let labels: [Int64] = [0, 3, -100, 2, 3, 1]
private let reductions: [Reduction] = [.mean, .sum, .none]

private func softplus(_ x: Double) -> Double { max(x, 0) + log1p(Glibc.exp(-abs(x))) }

/// Values per element, reduced as named.
private func reduce(_ values: [Double], _ reduction: Reduction) -> [Float] {
  let total = values.reduce(0, +)
  switch reduction {
  case .none: return values.map(Float.init)
  case .sum: return [Float(total)]
  case .mean, .paper: return [Float(total / Double(values.count))]
  }
}

/// An elementwise loss of two maps; the second input's gradient is checked where it has one.
private func elementwise(
  _ name: String, gradients: [Int] = [0], range: ClosedRange<Float> = -2...2,
  _ value: @escaping (Double, Double) -> Double,
  _ build: @escaping (Tensor, Tensor, Reduction) throws -> Tensor
) -> [OpCase] {
  reductions.map { reduction in
    let map = [2, 19, 3, 5]
    return OpCase(
      "\(name) \(reduction)", [map, map], large: [[2, 40, 30, 31], [2, 40, 30, 31]], range: range,
      reference: { inputs in
        reduce(zip(inputs[0], inputs[1]).map { value(Double($0), Double($1)) }, reduction)
      },
      // A sum of 570 values of order 1 in float rounds to 1e-4 when differences are taken.
      tolerance: 2e-5, gradients: gradients, gradientTolerance: reduction == .sum ? 2e-2 : 2e-3
    ) { try build($0[0], $0[1], reduction) }
  }
}

private let elementwiseCases: [OpCase] = [
  elementwise("mse", gradients: [0, 1], { ($0 - $1) * ($0 - $1) }) {
    try $0.squaredError($1, reduction: $2)
  },
  elementwise("l1", gradients: [], { abs($0 - $1) }) { try $0.absoluteError($1, reduction: $2) },
  elementwise(
    "smooth_l1", gradients: [0, 1],
    { abs($0 - $1) < 0.5 ? ($0 - $1) * ($0 - $1) : abs($0 - $1) - 0.25 }
  ) { try $0.smoothL1($1, beta: 0.5, reduction: $2) },
  elementwise("binary_cross_entropy", range: 0...1, { softplus($0) - $0 * $1 }) {
    try $0.binaryCrossEntropyWithLogits($1, reduction: $2)
  },
  elementwise(
    "sigmoid_focal", range: 0...1,
    { x, t in
      let sign = t > 0.5 ? 1.0 : -1.0
      let missing = 1 / (1 + Glibc.exp(sign * x))
      return (t > 0.5 ? 0.25 : 0.75) * missing * missing * softplus(-sign * x)
    }
  ) { try $0.sigmoidFocal($1, reduction: $2) },
  elementwise("hint l2", { ($0 - $1) * ($0 - $1) }) { try $0.hint(teacher: $1, reduction: $2) },
].flatMap { $0 }

@Suite struct LossTests {
  @Test(arguments: elementwiseCases) func elementwiseLoss(_ testCase: OpCase) throws {
    try check(testCase)
  }

  @Test(arguments: reductions) func crossEntropy(_ reduction: Reduction) throws {
    let weights: [Float] = [1, 2, 0.5, 1.5]
    try check(
      OpCase(
        "cross_entropy \(reduction)", [[6, 4]],
        reference: { inputs in
          let logs = Reference.logSoftmax(inputs[0], rows: 6, columns: 4)
          let rows = labels.indices.map { row -> Double in
            labels[row] < 0
              ? 0
              : -Double(weights[Int(labels[row])]) * Double(logs[row * 4 + Int(labels[row])])
          }
          if reduction != .mean { return reduce(rows, reduction) }
          // Weights of the labels that count: 1 + 1.5 + 0.5 + 1.5 + 2.
          return [Float(rows.reduce(0, +) / 6.5)]
        }
      ) {
        try $0[0].crossEntropy(
          integers(labels, [6]), classWeights: tensor(weights, [4]), reduction: reduction)
      })
  }

  @Test func crossEntropyOverMaps() throws {
    let marks = try integers([0, 2, 1, 1, 0, 2, -100, 1], [2, 2, 2])
    try check(OpCase("cross_entropy maps", [[2, 3, 2, 2]]) { try $0[0].crossEntropy(marks) })
  }

  /// The numbers of the method's page: L = 1.25 ln 3, gradient (-1/3, 1/6, 1/6).
  @Test func weightedSoftCrossEntropyByHand() throws {
    let student = try Tensor.zeros([1, 3])
    student.requiresGrad = true
    let teacher = try tensor([Glibc.log(0.5), Glibc.log(0.25), Glibc.log(0.25)], [1, 3])
    let weights = try tensor([1.5, 1, 1], [3])
    let loss = try student.weightedSoftCrossEntropy(teacher: teacher, classWeights: weights)
    #expect(abs(loss.item - 1.373265) < 1e-6)
    try Tape.backward(from: loss)
    let gradient = try student.gradient!.values()
    for (found, wanted) in zip(gradient, [-1.0 / 3, 1.0 / 6, 1.0 / 6]) {
      #expect(abs(Double(found) - wanted) < 1e-6)
    }
  }

  @Test(arguments: reductions) func weightedSoftCrossEntropy(_ reduction: Reduction) throws {
    try check(
      OpCase(
        "weighted_soft_cross_entropy \(reduction)", [[5, 4], [5, 4]],
        large: [[400, 91], [400, 91]],
        gradients: [0]
      ) {
        let weights = try Tensor(filled: 1, shape: [$0[0].shape[1]])
        weights.floats[0] = 1.5
        return try $0[0].weightedSoftCrossEntropy(
          teacher: $0[1], classWeights: weights, temperature: 2, reduction: reduction)
      })
  }

  /// The table of the method's page: y = 0, R_t = (1, 0, 0, 0), so e_t = 1.
  @Test func teacherBoundedRegressionByHand() throws {
    let rows: [(student: [Float], margin: Float, value: Float, gradient: [Float])] = [
      ([2, 0, 0, 0], 0, 4, [4, 0, 0, 0]), ([0, 0.5, 0, 0], 0, 0, [0, 0, 0, 0]),
      ([0, 1, 0, 0], 0, 0, [0, 0, 0, 0]), ([0, 1, 0, 0], 0.5, 1, [0, 2, 0, 0]),
      ([0.5, 0.5, 0, 0], 0.5, 0, [0, 0, 0, 0]), ([0.5, 0, 0, 0], 2, 0.25, [1, 0, 0, 0]),
    ]
    let teacher = try tensor([1, 0, 0, 0], [1, 4])
    teacher.requiresGrad = true
    for row in rows {
      let student = try tensor(row.student, [1, 4])
      student.requiresGrad = true
      let loss = try student.teacherBoundedRegression(
        teacher: teacher, targets: Tensor.zeros([1, 4]), margin: row.margin)
      #expect(loss.item == row.value)
      try Tape.backward(from: loss)
      #expect(try student.gradient?.values() == row.gradient)
    }
    #expect(teacher.gradient == nil)
  }

  @Test func theGateIsPerRow() throws {
    let student = try tensor([2, 0, 0, 0, 0.5, 0, 0, 0], [2, 4])
    let teacher = try tensor([1, 0, 0, 0, 1, 0, 0, 0], [2, 4])
    let targets = try Tensor.zeros([2, 4])
    // A gate on the mean would give 4.25.
    let values = try [Reduction.sum, .paper, .none].map {
      try student.teacherBoundedRegression(teacher: teacher, targets: targets, reduction: $0)
        .values()
    }
    #expect(values == [[4], [2], [4, 0]])
  }

  @Test func giou() throws {
    let target = try tensor([10, 10, 30, 40, 5, 5, 9, 8], [2, 4])
    for reduction in reductions {
      try check(
        OpCase("giou \(reduction)", [[2, 4]], range: 0...1, gradientTolerance: 3e-3) {
          // Boxes near the targets, of positive size.
          let shift = try tensor([12, 8, 25, 45, 0, 1, 6, 12], [2, 4])
          return try $0[0].adding(shift).giou(target, reduction: reduction)
        })
    }
    #expect(try target.giou(target, reduction: .sum).item < 1e-5)
  }

  @Test func emptyLossesAreZero() throws {
    let rows = try Tensor.zeros([0, 4])
    let none = try Tensor.zeros([0], dtype: .int64)
    rows.requiresGrad = true
    let losses = try [
      rows.squaredError(rows), rows.smoothL1(rows), rows.crossEntropy(none),
      rows.binaryCrossEntropyWithLogits(rows), rows.sigmoidFocal(rows), rows.giou(rows),
      rows.weightedSoftCrossEntropy(teacher: rows),
      rows.teacherBoundedRegression(teacher: rows, targets: rows), rows.hint(teacher: rows),
    ]
    for (index, loss) in losses.enumerated() {
      #expect(loss.item == 0, "loss \(index)")
      try Tape.backward(from: loss)
    }
    let ignored = try Tensor.zeros([2, 4]).crossEntropy(integers([-100, -100], [2]))
    #expect(ignored.item == 0)
  }

  @Test func wrongInputsThrow() throws {
    let x = try Tensor.zeros([2, 4])
    let other = try Tensor.zeros([3, 4])
    let calls: [() throws -> Any] = [
      { try x.squaredError(other) }, { try x.smoothL1(x, beta: -1) },
      { try x.smoothL1(x, beta: .nan) }, { try x.crossEntropy(integers([0, 4], [2])) },
      { try x.crossEntropy(integers([0, -1], [2])) }, { try x.crossEntropy(integers([0], [1])) },
      { try x.crossEntropy(x) },
      { try x.crossEntropy(integers([0, 1], [2]), classWeights: other) },
      { try x.binaryCrossEntropyWithLogits(other) }, { try x.sigmoidFocal(x, gamma: -1) },
      { try x.weightedSoftCrossEntropy(teacher: other) },
      { try x.weightedSoftCrossEntropy(teacher: x, temperature: 0) },
      { try x.weightedSoftCrossEntropy(teacher: x, classWeights: Tensor.zeros([3])) },
      { try x.teacherBoundedRegression(teacher: other, targets: x) },
      { try x.teacherBoundedRegression(teacher: x, targets: x, margin: .infinity) },
      { try Tensor.zeros([2, 5]).giou(Tensor.zeros([2, 5])) },
      { try x.hint(teacher: Tensor.zeros([2, 4, 1])) },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
  }
}
