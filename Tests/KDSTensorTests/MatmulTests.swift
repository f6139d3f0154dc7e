import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// Product by definition; the shapes have at least two axes.
private func product(_ a: [Float], _ shapeA: [Int], _ b: [Float], _ shapeB: [Int], _ out: [Int])
  -> [Float]
{
  Naive.indices(out).map { index in
    let batch = Array(index.dropLast(2))
    let (row, column) = (index[index.count - 2], index[index.count - 1])
    var total = 0.0
    for k in 0..<shapeA[shapeA.count - 1] {
      let x = a[Naive.position(batch + [row, k], shapeA)]
      total += Double(x) * Double(b[Naive.position(batch + [k, column], shapeB)])
    }
    return Float(total)
  }
}

private let cases: [OpCase] = [
  ([3, 5], [5, 7], [3, 7]), ([1, 1], [1, 1], [1, 1]), ([2, 3, 5], [2, 5, 4], [2, 3, 4]),
  ([2, 3, 5], [5, 4], [2, 3, 4]), ([3, 5], [2, 5, 4], [2, 3, 4]),
  ([2, 1, 3, 5], [4, 5, 2], [2, 4, 3, 2]), ([2, 1, 3, 5], [1, 6, 5, 2], [2, 6, 3, 2]),
].map { a, b, out in
  OpCase(
    "matmul", [a, b],
    large: a.count == 2 ? [[300, 200], [200, 150]] : [[8, 64, 32], [8, 32, 48]],
    reference: { product($0[0], a, $0[1], b, out) }
  ) { try $0[0].matmul($0[1]) }
}

@Suite struct MatmulTests {
  @Test(arguments: cases) func matmul(_ testCase: OpCase) throws {
    try check(testCase)
  }

  @Test func vectors() throws {
    let dot = OpCase(
      "dot", [[9], [9]], reference: { [zip($0[0], $0[1]).reduce(0) { $0 + $1.0 * $1.1 }] }
    ) { try $0[0].dot($0[1]) }
    try check(dot)
    for (a, b, shape) in [
      ([4], [4], []), ([4], [4, 3], [3]), ([2, 4], [4], [2]), ([5, 2, 4], [4], [5, 2]),
      ([4], [5, 4, 3], [5, 3]),
    ] as [([Int], [Int], [Int])] {
      let testCase = OpCase("matmul", [a, b]) { try $0[0].matmul($0[1]) }
      try check(testCase)
      #expect(try Tensor.zeros(a).matmul(Tensor.zeros(b)).shape == shape)
    }
  }

  @Test func linear() throws {
    let testCase = OpCase(
      "linear", [[6, 5], [7, 5], [7]], large: [[300, 200], [150, 200], [150]],
      reference: {
        Reference.linear($0[0], $0[1], bias: $0[2], rows: 6, inputs: 5, outputs: 7)
      }
    ) { try $0[0].linear($0[1], bias: $0[2]) }
    try check(testCase)
  }

  @Test func emptyAndWrongShapes() throws {
    #expect(try Tensor.zeros([0, 3]).matmul(Tensor.zeros([3, 2])).shape == [0, 2])
    #expect(try Tensor.zeros([2, 0]).matmul(Tensor.zeros([0, 2])).values() == [0, 0, 0, 0])
    let a = try Tensor.zeros([2, 3])
    #expect(throws: KDSError.self) { try a.matmul(Tensor.zeros([2, 3])) }
    #expect(throws: KDSError.self) { try a.matmul(Tensor.scalar(1)) }
    #expect(throws: KDSError.self) { try a.matmul(integers([1, 2, 3], [3])) }
    #expect(throws: KDSError.self) { try Tensor.zeros([2, 2, 3]).matmul(Tensor.zeros([3, 3, 2])) }
    #expect(throws: KDSError.self) { try a.dot(a) }
  }
}
