import Glibc
import KDSKernels
import Testing

@Suite struct ElementwiseLossTests {
  @Test func smoothL1WorkedValues() {
    let target: [Float] = [0]
    let ninth: Float = 1 / 9
    let cases: [(Float, Float, Double)] = [
      (0.5, 1, 0.125), (1, 1, 0.5), (2, 1, 1.5), (0.05, ninth, 0.01125),
      (ninth, ninth, 0.0555556), (0.5, ninth, 0.4444444), (-2, 0, 2),
    ]
    for (x, beta, expected) in cases {
      let value = Kernels.smoothL1([x], target, 1, beta: beta)
      #expect(abs(value - expected) < 1e-7)
    }
    let target33 = randoms(33, 1)
    checkGradient(randoms(33, 2, -3, 3), step: 1e-3) {
      Kernels.smoothL1($0, target33, 33, beta: 1, gradient: $1)
    }
  }

  @Test func distances() {
    let (a, b) = (randoms(1001, 1), randoms(1001, 2))
    var gradient = a
    let squared = Kernels.squaredDifference(a, b, 1001, scale: 0.5, gradient: &gradient)
    let exact = zip(a, b).reduce(0.0) { $0 + pow(Double($1.0) - Double($1.1), 2) }
    #expect(abs(squared - exact) < 1e-6 * exact)
    #expect(gradient == zip(a, b).map { $0 - $1 })
    let size = Kernels.absoluteDifference(a, b, 1001, scale: 3, gradient: &gradient)
    #expect(abs(size - zip(a, b).reduce(0.0) { $0 + Double(abs($1.0 - $1.1)) }) < 1e-3)
    #expect(gradient == zip(a, b).map { $0 > $1 ? 3 : -3 })
    #expect(Kernels.squaredDifference(a, a, 1001) == 0)
    #expect(Kernels.absoluteDifference([1], [1], 1, gradient: &gradient) == 0 && gradient[0] == 0)
  }

  @Test func binaryCrossEntropy() {
    let x: [Float] = [0, 100, -100, 100, -100]
    let t: [Float] = [0.5, 1, 0, 0, 1]
    let value = Kernels.binaryCrossEntropyWithLogits(x, t, 5)
    #expect(abs(value - (log(2) + 200)) < 1e-4)
    let targets = randoms(33, 2, 0, 1)
    let weights = randoms(33, 3, 0, 2)
    checkGradient(randoms(33, 1, -4, 4)) {
      Kernels.binaryCrossEntropyWithLogits($0, targets, 33, weights: weights, gradient: $1)
    }
  }

  @Test(arguments: [0, 1, 1.5, 2] as [Float]) func focal(_ gamma: Float) {
    let n = 33
    let labels = randoms(n, 4, 0, 1).map { $0.rounded() }
    let x = randoms(n, 1, -4, 4)
    let value = Kernels.sigmoidFocal(x, labels, n, gamma: gamma)
    var exact = 0.0
    for (z, t) in zip(x, labels) {
      let p = 1 / (1 + Glibc.exp(-Double(z)))
      let (truth, weight) = t == 1 ? (p, 0.25) : (1 - p, 0.75)
      exact -= weight * pow(1 - truth, Double(gamma)) * log(truth)
    }
    #expect(abs(value - exact) < 1e-6 * exact)
    checkGradient(x) { Kernels.sigmoidFocal($0, labels, n, gamma: gamma, gradient: $1) }
  }

  @Test func focalByLabelEqualsDense() {
    let (rows, columns) = (5, 19)
    let labels: [Int64] = [-1, 0, 18, -2, 400]
    let x = randoms(rows * columns, 1, -4, 4)
    var (byLabel, dense) = (x, x)
    let value = Kernels.sigmoidFocal(
      logits: x, labels: labels, rows: rows, columns: columns, scale: 2, gradient: &byLabel)
    var target = [Float](repeating: 0, count: 3 * columns)
    target[columns] = 1
    target[2 * columns + 18] = 1
    let expected = Kernels.sigmoidFocal(x, target, 3 * columns, scale: 2, gradient: &dense)
    #expect(abs(value - expected) < 1e-6 * expected)
    #expect(Array(byLabel[..<(3 * columns)]) == Array(dense[..<(3 * columns)]))
    #expect(byLabel[(3 * columns)...].allSatisfy { $0 == 0 })
  }
}

@Suite struct SoftmaxLossTests {
  @Test func crossEntropy() {
    let (rows, columns) = (6, 21)
    let labels: [Int64] = [0, 20, -1, 7, 21, 3]
    let weights: [Float] = [1, 2, 1, 0, 1, 0.5]
    checkGradient(randoms(rows * columns, 1, -3, 3)) {
      Kernels.softmaxCrossEntropy(
        logits: $0, labels: labels, rows: rows, columns: columns, rowWeights: weights, gradient: $1)
    }
    var gradient = [Float](repeating: 9, count: 6)
    let value = Kernels.softmaxCrossEntropy(
      logits: [0, 0, 0, 5, 5, 5], labels: [1, -1], rows: 2, columns: 3, gradient: &gradient)
    #expect(abs(value - log(3)) < 1e-6)
    #expect(error(gradient, [1 / 3, -2 / 3, 1 / 3, 0, 0, 0]) < 1e-6)
    #expect(Kernels.firstInvalidLabel(labels, rows, classes: columns) == 4)
    #expect(Kernels.firstInvalidLabel(labels, 4, classes: columns) == nil)
  }

  /// Teacher logits whose softmax is (1/2, 1/4, 1/4).
  static let teacher: [Float] = [Float(log(2.0)), 0, 0]
  static let weights: [Float] = [1.5, 1, 1]

  @Test func weightedSoftWorkedValue() {
    var gradient = [Float](repeating: 9, count: 3)
    let value = Kernels.weightedSoftCrossEntropy(
      student: [0, 0, 0], teacher: Self.teacher, rows: 1, columns: 3,
      classWeights: Self.weights, gradient: &gradient)
    #expect(abs(value - 1.373265) < 1e-6)
    #expect(error(gradient, [-1 / 3, 1 / 6, 1 / 6]) < 1e-6)
  }

  @Test func weightedSoftStationaryPoint() {
    func gradient(_ student: [Float], _ weights: [Float]?) -> [Float] {
      var gradient = [Float](repeating: 9, count: 3)
      let w = weights ?? [1, 1, 1]
      _ = Kernels.weightedSoftCrossEntropy(
        student: student, teacher: Self.teacher, rows: 1, columns: 3, classWeights: w,
        gradient: &gradient)
      return gradient
    }
    // P_s proportional to w P_t = (0.6, 0.2, 0.2) is stationary; P_s = P_t is not.
    #expect(error(gradient([Float(log(3.0)), 0, 0], Self.weights), [0, 0, 0]) < 1e-6)
    #expect(abs(gradient(Self.teacher, Self.weights)[0]) > 0.1)
    #expect(error(gradient([0, 0, 0], nil), [1 / 3 - 0.5, 1 / 12, 1 / 12]) < 1e-6)
    #expect(abs(gradient([0.3, -2, 1], Self.weights).reduce(0, +)) < 1e-6)
  }

  @Test(arguments: [1, 3] as [Float]) func weightedSoftGradient(_ temperature: Float) {
    let (rows, columns) = (3, 18)
    let teacher = randoms(rows * columns, 2, -3, 3)
    let classes = randoms(columns, 3, 0.5, 2)
    let mask: [Float] = [1, 0, 1]
    checkGradient(randoms(rows * columns, 1, -3, 3)) {
      Kernels.weightedSoftCrossEntropy(
        student: $0, teacher: teacher, rows: rows, columns: columns, classWeights: classes,
        temperature: temperature, rowWeights: mask, gradient: $1)
    }
  }

  @Test func equalLogitsGiveTheEntropy() {
    let value = Kernels.weightedSoftCrossEntropy(
      student: Self.teacher, teacher: Self.teacher, rows: 1, columns: 3)
    #expect(abs(value - (0.5 * log(2) + 0.5 * log(4))) < 1e-6)
  }
}

@Suite struct BoxLossTests {
  /// y = 0, R_t = (1, 0, 0, 0), so e_t = 1; all values exact in binary except 0.1.
  @Test(
    arguments: [
      ([2, 0, 0, 0], 0, 4, [4, 0, 0, 0]), ([0, 0.5, 0, 0], 0, 0, [0, 0, 0, 0]),
      ([0, 1, 0, 0], 0, 0, [0, 0, 0, 0]), ([0, 1, 0, 0], 0.5, 1, [0, 2, 0, 0]),
      ([0.5, 0.5, 0, 0], 0.5, 0, [0, 0, 0, 0]), ([0.1, 0, 0, 0], 2, 0.01, [0.2, 0, 0, 0]),
    ] as [([Float], Float, Double, [Float])])
  func teacherBoundedRegions(_ row: ([Float], Float, Double, [Float])) {
    let (student, margin, loss, slope) = row
    var gradient = [Float](repeating: 9, count: 4)
    let value = Kernels.teacherBoundedRegression(
      student: student, teacher: [1, 0, 0, 0], target: [0, 0, 0, 0], 1, margin: margin,
      gradient: &gradient)
    #expect(abs(value - loss) < 1e-8)
    #expect(gradient == slope)
  }

  @Test func teacherBoundIsPerBox() {
    let value = Kernels.teacherBoundedRegression(
      student: [2, 0, 0, 0, 0, 0.5, 0, 0], teacher: [1, 0, 0, 0, 1, 0, 0, 0],
      target: [0, 0, 0, 0, 0, 0, 0, 0], 2, margin: 0)
    #expect(value == 4)
    // R_t = y and m = 0: plain squared error.
    let (s, y) = (randoms(12, 1), randoms(12, 2))
    let bounded = Kernels.teacherBoundedRegression(student: s, teacher: y, target: y, 3, margin: 0)
    #expect(abs(bounded - Kernels.squaredDifference(s, y, 12)) < 1e-6)
    #expect(
      Kernels.teacherBoundedRegression(student: s, teacher: y, target: y, 0, margin: 0) == 0)
  }

  @Test func giou() {
    let target = randomBoxes(20, 2).map { $0 / 50 }
    checkGradient(randomBoxes(20, 1).map { $0 / 50 }, step: 1e-3, tolerance: 5e-3) {
      Kernels.giouLoss($0, target, 20, gradient: $1)
    }
    #expect(abs(Kernels.giouLoss([0, 0, 10, 10], [20, 20, 30, 30], 1) - (1 + 700.0 / 900)) < 1e-6)
    #expect(abs(Kernels.giouLoss([0, 0, 10, 10], [0, 0, 10, 10], 1)) < 1e-6)
  }
}
