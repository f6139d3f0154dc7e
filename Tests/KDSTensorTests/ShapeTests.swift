import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

private let map = [2, 19, 3, 5]
private let large = [2, 40, 30, 31]

/// A case whose reference picks, for each index of the result, one element of the input.
private func pick(
  _ name: String, _ shape: [Int] = map, to target: [Int], _ source: @escaping ([Int]) -> [Int],
  _ build: @escaping (Tensor) throws -> Tensor
) -> OpCase {
  OpCase(
    name, [shape], large: shape == map ? [large] : nil,
    // Elements are moved, not computed.
    reference: { x in Naive.indices(target).map { x[0][Naive.position(source($0), shape)] } },
    tolerance: 0
  ) { try build($0[0]) }
}

private let cases: [OpCase] = [
  pick("permute", to: [5, 2, 3, 19], { [$0[1], $0[3], $0[2], $0[0]] }) {
    try $0.permuted([3, 0, 2, 1])
  },
  pick("channels last", to: [2, 3, 5, 19], { [$0[0], $0[3], $0[1], $0[2]] }) {
    try $0.permuted([0, 2, 3, 1])
  },
  pick("transpose", [67, 70], to: [70, 67], { [$0[1], $0[0]] }) { try $0.transposed() },
  pick("transpose batch", [3, 37, 41], to: [3, 41, 37], { [$0[0], $0[2], $0[1]] }) {
    try $0.transposed(-1, -2)
  },
  pick("expand", [19, 1, 5], to: map, { [$0[1], 0, $0[3]] }) { try $0.expanded(to: map) },
  pick("expand scalar", [], to: [2, 3], { _ in [] }) { try $0.expanded(to: [2, 3]) },
  pick("slice 2", to: [2, 19, 2, 5], { [$0[0], $0[1], $0[2] + 1, $0[3]] }) {
    try $0.sliced(axis: 2, from: 1)
  },
  pick("slice step", to: [2, 19, 3, 2], { [$0[0], $0[1], $0[2], 1 + 2 * $0[3]] }) {
    try $0.sliced(axis: -1, from: 1, to: -1, step: 2)
  },
  pick("slice channels", to: [2, 7, 3, 5], { [$0[0], $0[1] + 6, $0[2], $0[3]] }) {
    try $0.sliced(axis: 1, from: 6, to: 13)
  },
  pick("slice batch", to: [1, 19, 3, 5], { [1] + $0[1...] }) { try $0.sliced(axis: 0, from: 1) },
  pick("select", to: [2, 19, 5], { [$0[0], $0[1], 2, $0[2]] }) {
    try $0.selected(axis: 2, index: -1)
  },
  pick("index select", to: [2, 4, 3, 5], { [$0[0], [3, 0, 3, 18][$0[1]], $0[2], $0[3]] }) {
    try $0.indexSelected(axis: 1, integers([3, 0, 3, -1], [4]))
  },
  pick("rows", [4, 6], to: [3, 6], { [[2, 2, 0][$0[0]], $0[1]] }) {
    try $0.takingRows(integers([2, 2, 0], [3]))
  },
  pick("gather", [3, 4], to: [2, 2], { [$0[0], [[1, 1], [3, 0]][$0[0]][$0[1]]] }) {
    try $0.gathered(axis: 1, integers([1, 1, -1, 0], [2, 2]))
  },
  pick("gather 0", [3, 4], to: [1, 4], { [[2, 0, 1, 2][$0[1]], $0[1]] }) {
    try $0.gathered(axis: 0, integers([2, 0, 1, 2], [1, 4]))
  },
  pick("masked rows", [4, 3], to: [2, 3], { [[1, 3][$0[0]], $0[1]] }) {
    try $0.maskSelected(tensor([0, 1, 0, 5], [4]))
  },
  pick("masked elements", [2, 2], to: [2], { [[0, 1], [1, 0]][$0[0]] }) {
    try $0.maskSelected(integers([0, 1, 1, 0], [2, 2]))
  },
  pick("flatten", to: [2, 19, 15], { [$0[0], $0[1], $0[2] / 5, $0[2] % 5] }) {
    try $0.flattened(from: 2)
  },
  pick(
    "reshape", to: [6, 95],
    { i in
      let place = i[0] * 95 + i[1]
      return [place / 285, place / 15 % 19, place / 5 % 3, place % 5]
    }
  ) { try $0.reshaped([6, -1]) },
  pick("squeeze", [1, 3, 1], to: [3], { [0, $0[0], 0] }) { try $0.squeezed() },
  pick("unsqueeze", [2, 3], to: [2, 3, 1], { Array($0[..<2]) }) { try $0.unsqueezed(axis: -1) },
]

@Suite struct ShapeTests {
  @Test(arguments: cases) func moves(_ testCase: OpCase) throws {
    try check(testCase)
  }

  @Test(arguments: [(0.0 as Float, false), (-1.5, false), (0, true)])
  func pad(_ value: Float, _ channels: Bool) throws {
    let before = [0, channels ? 1 : 0, 2, 1]
    let target = [2, channels ? 22 : 19, 5, 7]
    let testCase = OpCase(
      "pad", [map], large: [large],
      reference: { x in
        Naive.indices(target).map { index in
          let source = zip(index, before).map { $0 - $1 }
          let inside = zip(source, map).allSatisfy { $0 >= 0 && $0 < $1 }
          return inside ? x[0][Naive.position(source, map)] : value
        }
      }, tolerance: 0
    ) { try $0[0].padded([(0, 0), channels ? (1, 2) : (0, 0), (2, 0), (1, 1)], value: value) }
    try check(testCase)
  }

  @Test(arguments: [0, 1, 2, 3]) func concatenation(_ axis: Int) throws {
    var (first, last) = (map, map)
    // 16 channels fill blocks of 8 and 16; the last part need not.
    first[1] = 16
    last[1] = axis == 1 ? 19 : 16
    if axis != 1 { last[axis] = 4 }
    var target = first
    target[axis] += last[axis]
    let (one, two) = (first, last)
    let testCase = OpCase(
      "cat \(axis)", [one, two],
      reference: { x in
        Naive.indices(target).map { index in
          if index[axis] < one[axis] { return x[0][Naive.position(index, one)] }
          var moved = index
          moved[axis] -= one[axis]
          return x[1][Naive.position(moved, two)]
        }
      }, tolerance: 0
    ) { try Tensor.concatenated($0, axis: axis) }
    try check(testCase)
  }

  @Test func concatenationOfOddChannels() throws {
    let testCase = OpCase("cat odd", [map, map, map]) { try Tensor.concatenated($0, axis: -3) }
    try check(testCase)
    let stacked = OpCase(
      "stack", [[2, 3], [2, 3]],
      reference: { x in
        (0..<6).flatMap { [x[0][$0], x[1][$0]] }
      }, tolerance: 0
    ) { try Tensor.stacked($0, axis: -1) }
    try check(stacked)
  }

  @Test func splitsAddUp() throws {
    let x = try tensor((0..<10).map(Float.init), [2, 5])
    let parts = try x.split([2, 0, 3], axis: 1)
    #expect(parts.map(\.shape) == [[2, 2], [2, 0], [2, 3]])
    #expect(try Tensor.concatenated(parts, axis: 1).values() == x.values())
  }

  @Test func blockedSpatialOperationsStayBlocked() throws {
    let x = try Tensor.zeros(map).inLayout(.preferred)
    #expect(try x.sliced(axis: 3, from: 1).layout == .preferred)
    #expect(try x.padded([(0, 0), (0, 0), (1, 1), (1, 1)]).layout == .preferred)
    #expect(try Tensor.concatenated([x, x], axis: 0).layout == .preferred)
    #expect(try x.adding(Tensor.zeros([1, 19, 1, 1])).layout == .preferred)
    #expect(try x.relu().multiplied(by: x).layout == .preferred)
    #expect(try x.mean(axes: [2, 3], keepDims: true).layout == .preferred)
  }

  @Test func integersMoveToo() throws {
    let x = try integers([1, 2, 3, 4, 5, 6], [2, 3])
    #expect(try x.transposed().integerValues == [1, 4, 2, 5, 3, 6])
    #expect(try x.sliced(axis: 1, from: -2).integerValues == [2, 3, 5, 6])
    #expect(try x.takingRows(integers([1], [1])).integerValues == [4, 5, 6])
    #expect(try x.gathered(axis: 1, integers([2, 0], [2, 1])).integerValues == [3, 4])
    #expect(try Tensor.concatenated([x, x], axis: 0).shape == [4, 3])
    #expect(try integers([0, 3, 0, 1], [2, 2]).nonzero().integerValues == [0, 1, 1, 1])
  }

  @Test func pythonSlicesClamp() throws {
    let x = try tensor([0, 1, 2, 3], [4])
    #expect(try x.sliced(axis: 0, from: -100, to: 100).values() == [0, 1, 2, 3])
    #expect(try x.sliced(axis: 0, from: 3, to: 1).values() == [])
    #expect(try x.sliced(axis: 0, from: 9).shape == [0])
    #expect(try x.sliced(axis: 0, step: .max).values() == [0])
    #expect(try x.sliced(axis: 0, from: .min, to: .min).shape == [0])
  }

  @Test func positionsOutsideThrow() throws {
    let x = try Tensor.zeros([2, 3])
    let calls: [() throws -> Any] = [
      { try x.permuted([0, 0]) }, { try x.permuted([0]) }, { try x.transposed(0, 2) },
      { try x.sliced(axis: 2) }, { try x.sliced(axis: 0, step: 0) },
      { try x.selected(axis: 0, index: 2) }, { try x.selected(axis: 0, index: -3) },
      { try x.indexSelected(axis: 1, integers([3], [1])) },
      { try x.indexSelected(axis: 1, integers([-4], [1])) },
      { try x.indexSelected(axis: 1, tensor([0], [1])) },
      { try x.indexSelected(axis: 1, integers([0], [1, 1])) },
      { try x.gathered(axis: 1, integers([5], [1, 1])) },
      { try x.gathered(axis: 1, integers([0, 0, 0], [3, 1])) },
      { try x.gathered(axis: 0, integers([0], [1])) },
      { try x.maskSelected(tensor([1, 1, 1], [3])) },
      { try x.padded([(1, 1)]) }, { try x.padded([(0, 0), (-1, 0)]) },
      { try x.padded([(0, 0), (1 << 40, 1 << 40)]) },
      { try x.expanded(to: [2]) }, { try x.expanded(to: [4, 3]) },
      { try x.expanded(to: [.max, 2, 3]) }, { try x.expanded(to: [-1, 2, 3]) },
      { try x.squeezed(axis: 7) }, { try x.unsqueezed(axis: 4) }, { try x.unsqueezed(axis: -5) },
      { try x.flattened(from: 1, to: 0) }, { try x.split([1, 1], axis: 1) },
      { try x.split([-1, 4], axis: 1) }, { try Tensor.concatenated([], axis: 0) },
      { try Tensor.concatenated([x, Tensor.zeros([2, 4])], axis: 0) },
      { try Tensor.concatenated([x, Tensor.zeros([2])], axis: 0) },
      { try Tensor.concatenated([x, integers([0, 0, 0], [1, 3])], axis: 0) },
      { try Tensor.stacked([x, Tensor.zeros([3, 2])], axis: 0) },
      { try Tensor.stacked([x], axis: 4) }, { try Tensor.stacked([], axis: 0) },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
  }
}
