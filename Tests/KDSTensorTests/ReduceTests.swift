import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

private let map = [2, 19, 3, 5]
private let axesLists: [[Int]] = [
  [0], [1], [2], [3], [2, 3], [0, 2, 3], [0, 1], [1, 3], [0, 1, 2, 3], [1, 2, 3],
]

private func reduction(
  _ name: String, _ f: @escaping ([Double]) -> Double, gradients: [Int]? = nil,
  _ build: @escaping (Tensor, [Int], Bool) throws -> Tensor
) -> [OpCase] {
  axesLists.flatMap { axes in
    [false, true].map { keep in
      OpCase(
        "\(name) \(axes) \(keep ? "keep" : "")", [map], large: [[3, 40, 33, 35]],
        reference: { Naive.reduce($0[0], map, axes: axes, f) }, gradients: gradients
      ) { try build($0[0], axes, keep) }
    }
  }
}

private let cases: [OpCase] = [
  reduction("sum", { $0.reduce(0, +) }) { try $0.summed(axes: $1, keepDims: $2) },
  reduction("mean", { $0.reduce(0, +) / Double($0.count) }) {
    try $0.mean(axes: $1, keepDims: $2)
  },
  reduction("var", { variance($0, 1) }) { try $0.variance(axes: $1, keepDims: $2) },
  reduction("population var", { variance($0, 0) }) {
    try $0.variance(axes: $1, unbiased: false, keepDims: $2)
  },
  // The gradient of an extreme jumps where two elements cross: it has a test of its own.
  reduction("max", { $0.max()! }, gradients: []) { try $0.maximum(axes: $1, keepDims: $2) },
  reduction("min", { $0.min()! }, gradients: []) { try $0.minimum(axes: $1, keepDims: $2) },
].flatMap { $0 }

private func variance(_ values: [Double], _ freedom: Double) -> Double {
  let mean = values.reduce(0, +) / Double(values.count)
  return values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / (Double(values.count) - freedom)
}

@Suite struct ReduceTests {
  @Test(arguments: cases) func reduction(_ testCase: OpCase) throws {
    try check(testCase)
  }

  @Test func negativeAxesAndRanks() throws {
    let x = try Tensor((0..<6).map(Float.init), shape: [2, 3])
    #expect(try x.summed(axes: [-1]).values() == [3, 12])
    #expect(try x.summed().shape == [])
    #expect(try x.summed(axes: [1], keepDims: true).shape == [2, 1])
    #expect(try Tensor.scalar(4).summed().item == 4)
    #expect(try Tensor.scalar(4).mean().item == 4)
  }

  @Test func largeSumsAreAccurate() throws {
    // In float a running sum would stop growing at 2^24.
    let count = 20_000_000
    let ones = try Tensor(filled: 1, shape: [count])
    #expect(try ones.summed().item == Float(count))
    let rows = try Tensor(filled: 0.1, shape: [100_000, 3])
    for value in try rows.summed(axes: [0]).values() {
      // 128 floats of 0.1 round to within 1e-6 relative; doubles beyond that.
      #expect(abs(value - 10_000) < 0.02)
    }
  }

  @Test func extremesSendTheGradientToTheFirst() throws {
    let x = try tensor([3, 5, 5, 1, 1, 4], [2, 3])
    x.requiresGrad = true
    let (values, indices) = try x.largest(axis: 1)
    #expect(try values.values() == [5, 4])
    #expect([indices.integers[0], indices.integers[1]] == [1, 2])
    try Tape.backward(from: values.summed())
    #expect(try x.gradient?.values() == [0, 1, 0, 0, 0, 1])
    x.gradient = nil
    try Tape.backward(from: x.minimum())
    #expect(try x.gradient?.values() == [0, 0, 0, 1, 0, 0])
    let first = try x.argmax(axis: 0)
    #expect((0..<3).map { first.integers[$0] } == [0, 0, 0])
  }

  @Test func aNaNWins() throws {
    let x = try tensor([1, .nan, 3], [3])
    #expect(try x.maximum().item.isNaN)
    #expect(try x.minimum().item.isNaN)
    #expect(try x.argmax(axis: 0).integers[0] == 1)
  }

  @Test func wrongAxesThrow() throws {
    let x = try Tensor.zeros([2, 3])
    for axes in [[2], [-3], [0, 0], [0, -2]] {
      #expect(throws: KDSError.self) { try x.summed(axes: axes) }
    }
    #expect(throws: KDSError.self) { try x.argmax(axis: 5) }
    #expect(throws: KDSError.self) { try Tensor.zeros([2, 0]).maximum(axes: [1]) }
    #expect(throws: KDSError.self) { try Tensor.zeros([0]).maximum() }
  }
}
