import Glibc
import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// IoU of two boxes, from the definition.
private func overlap(_ a: [Float], _ b: [Float]) -> Double {
  func side(_ low: Int, _ high: Int) -> Double {
    max(0, Double(min(a[high], b[high])) - Double(max(a[low], b[low])))
  }
  func area(_ x: [Float]) -> Double { Double(x[2] - x[0]) * Double(x[3] - x[1]) }
  let inter = side(0, 2) * side(1, 3)
  return inter / (area(a) + area(b) - inter)
}

@Suite struct RegionLossTests {
  @Test func logIoU() throws {
    let target: [Float] = [10, 10, 30, 40, 5, 5, 9, 8]
    let shift = try tensor([12, 8, 25, 45, 4, 4, 8, 9], [2, 4])
    for reduction in [Reduction.mean, .sum, .none] {
      try check(
        OpCase(
          "log_iou \(reduction)", [[2, 4]], range: 0...0.9,
          reference: { inputs in
            let moved = zip(inputs[0], [12, 8, 25, 45, 4, 4, 8, 9] as [Float]).map { $0 + $1 }
            let rows = (0..<2).map { row -> Double in
              let slice = (4 * row)..<(4 * row + 4)
              return -log(overlap(Array(moved[slice]), Array(target[slice])))
            }
            if reduction == .none { return rows.map(Float.init) }
            return [Float(rows.reduce(0, +) / (reduction == .mean ? 2 : 1))]
          }, gradientTolerance: 3e-3
        ) {
          try $0[0].adding(shift).logIoU(tensor(target, [2, 4]), reduction: reduction)
        })
    }
    // Apart, or without an area: the bound of the IoU, and no gradient.
    let far = try tensor([50, 50, 60, 60, 7, 7, 7, 7], [2, 4])
    far.requiresGrad = true
    let loss = try far.logIoU(tensor(target, [2, 4]), reduction: .sum)
    #expect(abs(loss.item + 2 * log(1e-6)) < 1e-4)
    try Tape.backward(from: loss)
    #expect(try far.gradient!.values().allSatisfy { $0 == 0 })
  }

  @Test func standardizedLike() throws {
    let shape = [2, 3, 3, 4]
    try check(
      OpCase(
        "standardize_like", [shape, shape], large: [[4, 40, 30, 31], [4, 40, 30, 31]],
        reference: { inputs in
          var out = inputs[0]
          for channel in 0..<3 {
            let places = (0..<24).map { ($0 / 12 * 3 + channel) * 12 + $0 % 12 }
            let (x, y) = (
              places.map { Double(inputs[0][$0]) }, places.map { Double(inputs[1][$0]) }
            )
            let (mx, my) = (x.reduce(0, +) / 24, y.reduce(0, +) / 24)
            let sx = (x.reduce(0) { $0 + ($1 - mx) * ($1 - mx) } / 23).squareRoot()
            let sy = (y.reduce(0) { $0 + ($1 - my) * ($1 - my) } / 23).squareRoot()
            for (value, place) in zip(x, places) {
              out[place] = Float((value - mx) / (sx + 1e-6) * sy + my)
            }
          }
          return out
        }, gradients: [0]
      ) { try $0[0].standardizedLike($0[1]) })
  }

  @Test func pairwiseDistances() throws {
    try check(
      OpCase(
        "pairwise_distance", [[5, 7]], large: [[12, 5000]],
        reference: { inputs in
          (0..<25).map { cell in
            let (a, b) = (cell / 5, cell % 5)
            return Float(
              (0..<7).reduce(0.0) {
                $0 + Glibc.pow(Double(inputs[0][a * 7 + $1]) - Double(inputs[0][b * 7 + $1]), 2)
              }.squareRoot())
          }
        }, gradientTolerance: 2e-3
      ) { try $0[0].pairwiseDistances() })
    let same = try Tensor(filled: 3, shape: [4, 2])
    same.requiresGrad = true
    let total = try same.pairwiseDistances().summed()
    #expect(total.item == 0)
    try Tape.backward(from: total)
    #expect(try same.gradient!.values().allSatisfy { $0 == 0 })
  }

  /// Every crop by itself, cell by cell.
  @Test(arguments: [true, false]) func regionWeights(_ normalize: Bool) throws {
    let (images, channels, height, width, scale): (Int, Int, Int, Int, Float) = (3, 5, 6, 9, 0.125)
    var rois: [Float] = [
      0, 0, 0, 72, 48, 0, 8, 8, 16, 16, 2, -50, -50, -20, -9, 2, 500, 500, 900, 900,
      2, 20, 20, 20, 20, 1, 3, 5, 41, 43.5,
    ]
    for index in 0..<20 {
      let (x, y) = (Float(index * 37 % 70), Float(index * 53 % 45))
      let (w, h) = (Float(index * 11 % 40), Float(index * 7 % 30))
      rois += [Float(index % 3), x, y, x + w, y + h]
    }
    let count = rois.count / 5
    var wanted = [Double](repeating: 0, count: images * height * width)
    for index in 0..<count {
      let roi = rois[(5 * index)..<(5 * index + 5)].map { $0 }
      let left = min(max(Int((roi[1] * scale).rounded(.down)), 0), width - 1)
      let top = min(max(Int((roi[2] * scale).rounded(.down)), 0), height - 1)
      let right = max(left + 1, min(Int((roi[3] * scale).rounded(.up)), width))
      let bottom = max(top + 1, min(Int((roi[4] * scale).rounded(.up)), height))
      let size = normalize ? channels * (right - left) * (bottom - top) : 1
      for y in top..<bottom {
        for x in left..<right {
          wanted[(Int(roi[0]) * height + y) * width + x] += 0.5 / Double(count * size)
        }
      }
    }
    let map = try Tensor.zeros([images, channels, height, width])
    for layout in [Layout.plain, .blocked(8)] {
      let found = try map.inLayout(layout).regionWeights(
        tensor(rois, [count, 5]), spatialScale: scale, normalize: normalize
      ).values()
      #expect(zip(found, wanted).allSatisfy { abs(Double($0) - $1) <= 1e-7 * $1 })
    }
  }

  @Test func highestScore() throws {
    for shape in [[2, 19, 3, 5], [1, 16, 2, 2], [2, 3, 40, 30], [1, 1, 1, 1]] {
      try check(
        OpCase(
          "highest_score", [shape], large: [[4, 33, 40, 31]],
          reference: { inputs in
            let area = shape[2] * shape[3]
            return (0..<(shape[0] * area)).map { place in
              let first = place / area * shape[1] * area + place % area
              let best = (0..<shape[1]).map { inputs[0][first + $0 * area] }.max()!
              return Float(1 / (1 + Glibc.exp(-Double(best))))
            }
          }, gradients: []
        ) { try $0[0].highestScore() })
    }
    // Padding channels of a block are no channels.
    let low = try Tensor(filled: -3, shape: [1, 3, 2, 2]).inLayout(.blocked(16))
    #expect(try low.highestScore().values().allSatisfy { abs($0 - 0.0474259) < 1e-6 })
  }

  @Test func emptyAndWrongInputs() throws {
    let map = try Tensor.zeros([2, 3, 4, 5])
    let none = try map.regionWeights(Tensor.zeros([0, 5]), spatialScale: 1)
    #expect(none.shape == [2, 1, 4, 5])
    #expect(try none.values().allSatisfy { $0 == 0 })
    let empty = try Tensor.zeros([0, 3, 0, 5])
    #expect(try empty.standardizedLike(empty).count == 0)
    #expect(try Tensor.zeros([0, 4]).pairwiseDistances().shape == [0, 0])
    let boxes = try Tensor.zeros([0, 4])
    #expect(try boxes.logIoU(boxes).item == 0)
    let calls: [() throws -> Any] = [
      { try map.regionWeights(Tensor.zeros([1, 4]), spatialScale: 1) },
      { try map.regionWeights(tensor([2, 0, 0, 1, 1], [1, 5]), spatialScale: 1) },
      { try map.regionWeights(tensor([.nan, 0, 0, 1, 1], [1, 5]), spatialScale: 1) },
      { try map.regionWeights(tensor([0, .nan, 0, 1, 1], [1, 5]), spatialScale: 1) },
      { try map.regionWeights(Tensor.zeros([0, 5]), spatialScale: 0) },
      { try map.standardizedLike(empty) }, { try map.standardizedLike(map, eps: 0) },
      { try boxes.highestScore() }, { try Tensor.zeros([1, 0, 2, 2]).highestScore() },
      { try map.pairwiseDistances() }, { try map.logIoU(map) },
      { try boxes.logIoU(Tensor.zeros([1, 4])) },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
    // Coordinates that leave every integer range are clipped before they become cells.
    let huge = try tensor([0, -3e38, -3e38, 3e38, 3e38], [1, 5])
    #expect(try map.regionWeights(huge, spatialScale: 1e10).values()[0] > 0)
  }
}
