import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// One cut of a map into windows.
private struct Cut {
  let (map, heads, depth, window, shift): ((Int, Int, Int), Int, Int, Int, Int)
  var shapes: [[Int]] {
    let positions = (2 * window - 1) * (2 * window - 1)
    let channels = 3 * heads * depth
    return [[map.0, map.1, map.2, channels], [positions, heads], [channels]]
  }
}

/// Whole and padded maps, shifted or not, single windows on one side or both, odd depths.
private let cuts = [
  Cut(map: (2, 4, 6), heads: 2, depth: 3, window: 2, shift: 1),
  Cut(map: (1, 5, 7), heads: 1, depth: 4, window: 3, shift: 1),
  Cut(map: (2, 5, 9), heads: 2, depth: 5, window: 4, shift: 2),
  Cut(map: (1, 3, 9), heads: 1, depth: 17, window: 4, shift: 2),
  Cut(map: (1, 9, 4), heads: 3, depth: 2, window: 4, shift: 3),
  Cut(map: (1, 3, 2), heads: 1, depth: 1, window: 4, shift: 2),
  Cut(map: (1, 10, 15), heads: 1, depth: 32, window: 7, shift: 3),
  Cut(map: (1, 14, 14), heads: 2, depth: 8, window: 7, shift: 0),
]

private let attention: [OpCase] = cuts.map { cut in
  OpCase(
    "window_attention window \(cut.window) shift \(cut.shift)", cut.shapes,
    large: [[2, 30, 25, 96], [169, 4], [96]], range: -1...1,
    reference: {
      Reference.windowAttention(
        $0[0], images: cut.map.0, height: cut.map.1, width: cut.map.2,
        channels: cut.heads * cut.depth, heads: cut.heads, window: cut.window, shift: cut.shift,
        table: $0[1], filler: $0[2])
    },
    blocked: []
  ) {
    // The comparison of threads has a map, heads and windows of its own.
    let isLarge = $0[0].shape == [2, 30, 25, 96]
    return try $0[0].windowAttention(
      table: $0[1], padding: $0[2], heads: isLarge ? 4 : cut.heads,
      window: isLarge ? 7 : cut.window, shift: isLarge ? 3 : cut.shift)
  }
}

private let map = [2, 19, 6, 5]

private let others: [OpCase] = [
  OpCase(
    "gelu", [map], large: [[2, 40, 30, 31]], range: -6...6, reference: { Reference.gelu($0[0]) },
    tolerance: 2e-6
  ) { try $0[0].gelu() },
  OpCase(
    "tokens", [map], large: [[2, 40, 90, 31]],
    reference: { x in
      Naive.indices([2, 6, 5, 19]).map {
        x[0][Naive.position([$0[0], $0[3], $0[1], $0[2]], map)]
      }
    }, tolerance: 0
  ) { try $0[0].tokens() },
  OpCase(
    "feature_map", [[2, 6, 5, 19]], large: [[2, 90, 31, 40]],
    reference: { x in
      Naive.indices(map).map {
        x[0][Naive.position([$0[0], $0[2], $0[3], $0[1]], [2, 6, 5, 19])]
      }
    }, tolerance: 0, blocked: []
  ) { try $0[0].featureMap() },
  OpCase(
    "merge_patches", [[2, 5, 3, 7]], large: [[2, 91, 31, 40]],
    reference: { x in
      Naive.indices([2, 3, 2, 28]).map {
        let quarter = $0[3] / 7
        let (y, x0) = (2 * $0[1] + quarter % 2, 2 * $0[2] + quarter / 2)
        if y >= 5 || x0 >= 3 { return 0 }
        return x[0][Naive.position([$0[0], y, x0, $0[3] % 7], [2, 5, 3, 7])]
      }
    }, tolerance: 0, blocked: []
  ) { try $0[0].mergedPatches() },
]

@Suite struct AttentionTests {
  @Test(arguments: attention + others) func operation(_ testCase: OpCase) throws {
    try check(testCase)
  }

  /// Far out the tail decays to nothing and must neither turn negative nor lose its digits.
  @Test func geluFarOut() throws {
    let x: [Float] = [-30, -12, -9, -5, -3, -1e-20, 0, 1e-20, 3, 9, 30, .infinity]
    let found = try tensor(x, [x.count]).gelu().values()
    for (value, wanted) in zip(found, Reference.gelu(x)) {
      // x² / 2 = 40 with a relative rounding of 6e-8 stands in the exponent.
      #expect(value == wanted || abs(value - wanted) <= 3e-6 * abs(wanted) + 1e-37)
    }
    #expect(try tensor([.nan], [1]).gelu().values()[0].isNaN)
  }

  @Test func withoutPaddingRowsAreZero() throws {
    let x = try Tensor(filled: 1, shape: [1, 2, 3, 6])
    let table = try Tensor.zeros([25, 1])
    let without = try x.windowAttention(table: table, heads: 1, window: 3).values()
    let zeros = try x.windowAttention(
      table: table, padding: Tensor.zeros([6]), heads: 1, window: 3
    ).values()
    #expect(without == zeros)
    // Six tokens see themselves with e^√2 and three zeros with 1.
    let share = Float(6) / (6 + 3 * 0.243_116_73)
    #expect(without.allSatisfy { abs($0 - share) < 1e-6 })
  }

  @Test func emptyMaps() throws {
    for shape in [[0, 4, 4, 6], [2, 0, 4, 6], [1, 4, 0, 6]] {
      let x = try Tensor.zeros(shape)
      let table = try Tensor.zeros([9, 1])
      x.requiresGrad = true
      table.requiresGrad = true
      let result = try x.windowAttention(table: table, heads: 1, window: 2, shift: 1)
      #expect(result.shape == [shape[0], shape[1], shape[2], 2])
      try Tape.backward(from: result, seed: result.detached())
      #expect(try table.gradient?.values() == [Float](repeating: 0, count: 9))
      #expect(try x.mergedPatches().count == 0)
    }
  }

  @Test func wrongShapesThrow() throws {
    let x = try Tensor.zeros([1, 4, 4, 12])
    let table = try Tensor.zeros([9, 2])
    let calls: [() throws -> Any] = [
      { try x.windowAttention(table: table, heads: 3, window: 2) },
      { try x.windowAttention(table: table, heads: 0, window: 2) },
      { try x.windowAttention(table: table, heads: 2, window: 3) },
      { try x.windowAttention(table: table, heads: 2, window: 2, shift: 2) },
      { try x.windowAttention(table: table, heads: 2, window: 2, shift: -1) },
      { try x.windowAttention(table: table, heads: 2, window: 99) },
      { try x.windowAttention(table: table, padding: Tensor.zeros([6]), heads: 2, window: 2) },
      { try x.reshaped([4, 4, 12]).windowAttention(table: table, heads: 2, window: 2) },
      { try x.reshaped([16, 12]).mergedPatches() },
      { try x.reshaped([16, 12]).tokens() }, { try x.reshaped([16, 12]).featureMap() },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
  }
}
