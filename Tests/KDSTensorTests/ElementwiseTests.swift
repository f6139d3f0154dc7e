import Glibc
import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// 19 channels do not fill blocks of 8 or 16, so that padding is at stake.
private let map = [2, 19, 3, 5]
/// Enough elements for two threads at the usual grain.
private let largeMap = [2, 40, 30, 31]

private func unary(
  _ name: String, range: ClosedRange<Float> = -2...2, kinks: [Float] = [],
  gradients: [Int]? = nil, _ f: @escaping (Double) -> Double,
  _ build: @escaping (Tensor) throws -> Tensor
) -> OpCase {
  OpCase(
    name, [map], large: [largeMap], range: range,
    reference: { $0[0].map { Float(f(Double($0))) } }, gradients: gradients,
    skip: { _, x in kinks.contains { abs(x - $0) < 0.02 } }, build: { try build($0[0]) })
}

private let unaryCases: [OpCase] = [
  unary("neg", { -$0 }) { try $0.negated() },
  unary("exp", Glibc.exp) { try $0.exp() },
  unary("log", range: 0.2...3, Glibc.log) { try $0.log() },
  unary("sqrt", range: 0.2...3, { $0.squareRoot() }) { try $0.sqrt() },
  unary("abs", kinks: [0], Swift.abs) { try $0.abs() },
  unary("relu", kinks: [0], { max($0, 0) }) { try $0.relu() },
  unary("sigmoid", { 1 / (1 + Glibc.exp(-$0)) }) { try $0.sigmoid() },
  unary("tanh", Glibc.tanh) { try $0.tanh() },
  unary("square", { $0 * $0 }) { try $0.squared() },
  unary("clamp", kinks: [-0.5, 1], { min(max($0, -0.5), 1) }) { try $0.clamped(min: -0.5, max: 1) },
  unary("clamp above 0", kinks: [0.5], { max($0, 0.5) }) { try $0.clamped(min: 0.5) },
  unary("power 3", { $0 * $0 * $0 }) { try $0.raised(to: 3) },
  unary("power 1.7", range: 0.3...2, { pow($0, 1.7) }) { try $0.raised(to: 1.7) },
  unary("power -1", range: 0.5...2, { 1 / $0 }) { try $0.raised(to: -1) },
  unary("add value", { $0 + 0.75 }) { try $0.adding(0.75) },
  unary("subtract value", { $0 - 0.75 }) { try $0.subtracting(0.75) },
  unary("subtract from value", { 0.75 - $0 }) { try $0.subtracted(from: 0.75) },
  unary("multiply value", { $0 * -1.5 }) { try $0.multiplied(by: -1.5) },
  unary("divide value", { $0 / 3 }) { try $0.divided(by: 3) },
  unary("value divided", range: 0.5...2, { 3 / $0 }) { try $0.dividing(3) },
  unary("less than value", gradients: [], { $0 < 0.3 ? 1 : 0 }) { try $0.compared(.less, to: 0.3) },
]

/// Pairs of shapes: equal; per channel; per pixel; scalar; missing axes; both stretched.
private let pairs: [([Int], [Int], [Int])] = [
  (map, map, map), (map, [1, 19, 1, 1], map), (map, [19, 1, 1], map), ([2, 1, 3, 5], map, map),
  (map, [], map), ([1], map, map), ([4, 1, 3], [5, 1], [4, 5, 3]), ([3], [2, 3], [2, 3]),
  ([2, 19, 1, 1], map, map), ([2, 1, 3, 1], [1, 19, 1, 5], map),
]

private func binary(
  _ name: String, range: ClosedRange<Float> = -2...2, gradients: [Int]? = nil,
  _ f: @escaping (Double, Double) -> Double, _ build: @escaping (Tensor, Tensor) throws -> Tensor
) -> [OpCase] {
  pairs.map { a, b, shape in
    OpCase(
      name, [a, b], large: a == b ? [largeMap, largeMap] : nil, range: range,
      reference: { Naive.binary($0[0], a, $0[1], b, shape, f) }, gradients: gradients,
      // Several hundred terms of order 1 are summed into the gradient of a stretched operand.
      gradientTolerance: 2e-3, build: { try build($0[0], $0[1]) })
  }
}

private let binaryCases: [OpCase] = [
  binary("add", { $0 + $1 }) { try $0.adding($1) },
  binary("sub", { $0 - $1 }) { try $0.subtracting($1) },
  binary("mul", { $0 * $1 }) { try $0.multiplied(by: $1) },
  binary("div", range: 0.5...2, { $0 / $1 }) { try $0.divided(by: $1) },
  binary("pow", range: 0.5...2, { pow($0, $1) }) { try $0.raised(to: $1) },
  binary("greater", gradients: [], { $0 > $1 ? 1 : 0 }) { try $0.compared(.greater, to: $1) },
  binary("not equal", gradients: [], { $0 != $1 ? 1 : 0 }) { try $0.compared(.notEqual, to: $1) },
  // Ties have probability 0; a step of 1e-3 keeps differences clear of most crossings.
  binary("maximum", gradients: [], { max($0, $1) }) { try $0.maximum($1) },
  binary("minimum", gradients: [], { min($0, $1) }) { try $0.minimum($1) },
].flatMap { $0 }

@Suite struct ElementwiseTests {
  @Test(arguments: unaryCases) func unaryFunction(_ testCase: OpCase) throws {
    try check(testCase)
  }

  @Test(arguments: binaryCases) func binaryFunction(_ testCase: OpCase) throws {
    try check(testCase)
  }

  @Test func fusedAddAndReLU() throws {
    let testCase = OpCase(
      "add_relu", [map, map], large: [largeMap, largeMap],
      reference: { Naive.binary($0[0], map, $0[1], map, map) { max($0 + $1, 0) } },
      // The kink is at a + b = 0, which one input alone does not show.
      gradients: [0, 1], gradientTolerance: 0.6
    ) { try $0[0].addingReLU($0[1]) }
    try check(testCase)
  }

  @Test func whereBroadcasts() throws {
    let mask = try tensor([1, 0, 2, 0, 0], [5])
    let testCase = OpCase(
      "where", [map, [19, 1, 1]],
      reference: { inputs in
        Naive.indices(map).map {
          [0, 2].contains($0[3]) ? inputs[0][Naive.position($0, map)] : inputs[1][$0[1]]
        }
      }
    ) { try Tensor.choose(mask, $0[0], $0[1]) }
    try check(testCase)
  }

  @Test func extremesShareTheGradientOfTies() throws {
    let a = try tensor([1, 2, 3], [3])
    let b = try tensor([3, 2, 1], [3])
    a.requiresGrad = true
    b.requiresGrad = true
    try Tape.backward(from: a.maximum(b).summed())
    #expect(try a.gradient?.values() == [0, 0.5, 1])
    #expect(try b.gradient?.values() == [1, 0.5, 0])
  }

  @Test func specialValues() throws {
    let x = try tensor([0, -0.5, .infinity, .nan, 1e-42], [5])
    let log = try x.log().values()
    #expect(log[0] == -.infinity && log[1].isNaN && log[2] == .infinity && log[3].isNaN)
    // 1e-42 is subnormal: 714 steps of 2^-149.
    #expect(abs(log[4] - Glibc.log(1e-42)) < 1e-5)
    let relu = try x.relu().values()
    #expect(relu[0] == 0 && relu[1] == 0 && relu[2] == .infinity && relu[3].isNaN)
    let tanh = try x.tanh().values()
    #expect(tanh[2] == 1 && tanh[3].isNaN)
  }

  @Test func smallTanhKeepsItsDigits() throws {
    let x: [Float] = [1e-6, -1e-3, 0.05, -0.2, 0.29, 0.3, 0.31]
    let y = try tensor(x, [x.count]).tanh().values()
    for (a, b) in zip(x, y) {
      let exact = Glibc.tanh(Double(a))
      // Series and quotient each round a handful of times.
      #expect(abs(Double(b) - exact) <= 5e-7 * abs(exact))
    }
  }

  @Test func oneTensorTwiceGetsBothGradients() throws {
    let x = try tensor([2, -3], [2])
    x.requiresGrad = true
    try Tape.backward(from: x.multiplied(by: x).adding(x).summed())
    #expect(try x.gradient?.values() == [5, -5])
  }

  @Test func wrongInputsThrow() throws {
    let a = try Tensor.zeros([2, 3])
    let integers = try KDSTestSupport.integers([1, 2], [2])
    #expect(throws: KDSError.self) { try a.adding(Tensor.zeros([2, 4])) }
    #expect(throws: KDSError.self) { try a.adding(integers) }
    #expect(throws: KDSError.self) { try integers.relu() }
    #expect(throws: KDSError.self) { try a.clamped(min: 2, max: 1) }
    #expect(throws: KDSError.self) { try a.clamped(min: .nan) }
    #expect(throws: KDSError.self) { try a.addingReLU(Tensor.zeros([3])) }
    #expect(throws: KDSError.self) { try tensor([.nan], [1]).converted(to: .int64) }
    #expect(throws: KDSError.self) { try tensor([1e30], [1]).converted(to: .int64) }
  }

  @Test func emptyTensorsPass() throws {
    let empty = try Tensor.zeros([0, 3])
    #expect(try empty.adding(Tensor.zeros([3])).shape == [0, 3])
    #expect(try empty.exp().values() == [])
    #expect(try empty.summed().item == 0)
    #expect(try empty.summed(axes: [0]).values() == [0, 0, 0])
  }
}
