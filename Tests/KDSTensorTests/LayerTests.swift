import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

private let map = [2, 19, 6, 5]
private let large = [2, 40, 30, 31]

/// Means over PyTorch's cells, by definition.
private func adaptiveMeans(_ x: [Float], _ shape: [Int], _ size: Size2) -> [Float] {
  Naive.indices([shape[0], shape[1], size.height, size.width]).map { index in
    func cell(_ i: Int, _ n: Int, _ length: Int) -> Range<Int> {
      (i * length / n)..<(((i + 1) * length + n - 1) / n)
    }
    var values: [Double] = []
    for y in cell(index[2], size.height, shape[2]) {
      for x0 in cell(index[3], size.width, shape[3]) {
        values.append(Double(x[Naive.position([index[0], index[1], y, x0], shape)]))
      }
    }
    return Float(values.reduce(0, +) / Double(values.count))
  }
}

private let cases: [OpCase] =
  [
    OpCase(
      "softmax", [[7, 19]], large: [[400, 91]],
      reference: { Reference.softmax($0[0], rows: 7, columns: 19) }
    ) { try $0[0].softmax() },
    OpCase(
      "log_softmax", [[7, 19]], large: [[400, 91]],
      reference: { Reference.logSoftmax($0[0], rows: 7, columns: 19) }
    ) { try $0[0].logSoftmax(axis: 1) },
    OpCase("softmax over channels", [map], large: [large]) { try $0[0].softmax(axis: 1) },
    OpCase("log_softmax over rows", [[5, 7]]) { try $0[0].logSoftmax(axis: 0) },
    OpCase(
      "layer_norm", [[6, 19], [19], [19]], large: [[300, 91], [91], [91]],
      reference: {
        Reference.layerNorm(
          $0[0], rows: 6, columns: 19, weight: $0[1], bias: $0[2], eps: 1e-5
        ).output
      }
    ) { try $0[0].layerNorm(weight: $0[1], bias: $0[2]) },
    OpCase("layer_norm without parameters", [[6, 19]]) { try $0[0].layerNorm() },
    OpCase(
      "group_norm", [[2, 12, 3, 5], [12], [12]], large: [[2, 40, 30, 31], [40], [40]],
      reference: {
        Reference.groupNorm(
          $0[0], images: 2, channels: 12, area: 15, groups: 4, weight: $0[1], bias: $0[2], eps: 1e-5
        ).output
      }
    ) { try $0[0].groupNorm(groups: 4, weight: $0[1], bias: $0[2]) },
    OpCase(
      "nearest", [map], large: [large],
      reference: {
        Reference.nearest($0[0], planes: 38, height: 6, width: 5, outHeight: 11, outWidth: 7)
      }, tolerance: 0
    ) { try $0[0].resizedNearest(Size2(11, 7)) },
    OpCase(
      "bilinear", [map], large: [large],
      reference: {
        Reference.bilinear($0[0], planes: 38, height: 6, width: 5, outHeight: 4, outWidth: 9)
      }
    ) { try $0[0].resizedBilinear(Size2(4, 9)) },
    OpCase("crop", [map], large: [large]) { try $0[0].cropped(Size2(4, 3)) },
  ]
  + [Size2(1, 1), Size2(3, 2), Size2(4, 5), Size2(7, 6)].map { size in
    OpCase(
      "adaptive mean \(size)", [map], large: [large],
      reference: { adaptiveMeans($0[0], map, size) }
    ) { try $0[0].adaptiveAveragePool2d(size) }
  }

@Suite struct LayerTests {
  @Test(arguments: cases) func layer(_ testCase: OpCase) throws { try check(testCase) }

  @Test func regions() throws {
    let numbers: [Float] = [
      0, 1, 2, 30, 40, 1, -5, 0.5, 12, 9, 1, 0, 0, 47, 39, 0, 20, 20, 20.5, 20.25,
    ]
    let rois = try tensor(numbers, [4, 5])
    let grid = RoIGrid(height: 3, width: 4, spatialScale: 0.125, samplingRatio: 2)
    let geometry = MapGeometry(images: 2, channels: 19, height: 6, width: 5)
    try check(
      OpCase(
        "roi_align", [map],
        reference: {
          Reference.roiAlign($0[0], map: geometry, rois: numbers, grid: grid)
        }
      ) { try $0[0].roiAlign(rois, grid: grid) })
    try check(
      OpCase(
        "roi_pool", [map],
        reference: {
          Reference.roiPool($0[0], map: geometry, rois: numbers, grid: grid).output
        },
        // A step of 1e-2 may change which pixel is the largest; 1e-3 hardly ever does.
        tolerance: 0, step: 1e-3, gradientTolerance: 5e-3
      ) { try $0[0].roiPool(rois, grid: grid) })
    try check(
      OpCase(
        "ps_roi_pool", [[2, 24, 6, 5]],
        reference: {
          Reference.psRoIPool(
            $0[0], map: MapGeometry(images: 2, channels: 24, height: 6, width: 5), rois: numbers,
            grid: grid)
        }
      ) { try $0[0].psRoIPool(rois, grid: grid) })
  }

  @Test func dropoutIsReproducible() throws {
    let x = try Tensor(filled: 1, shape: [4, 19, 30, 31])
    let first = try x.dropout(probability: 0.3, seed: 5, stream: 1).values()
    #expect(try first == x.dropout(probability: 0.3, seed: 5, stream: 1).values())
    #expect(try first != x.dropout(probability: 0.3, seed: 6, stream: 1).values())
    let blocked = try x.inLayout(.preferred).dropout(probability: 0.3, seed: 5, stream: 1)
    #expect(try blocked.layout == .preferred && blocked.values() == first)
    #expect(first.allSatisfy { $0 == 0 || abs($0 - 1 / 0.7) < 1e-6 })
    // 70 680 draws: six standard deviations of the share of zeros are 0.01.
    let share = Double(first.filter { $0 == 0 }.count) / Double(first.count)
    #expect(abs(share - 0.3) < 0.01)
    #expect(try x.dropout(probability: 0, seed: 1) === x)
    #expect(try x.dropout(probability: 1, seed: 1).values().allSatisfy { $0 == 0 })
    for p in [-0.1, 1.5, .nan] as [Float] {
      #expect(throws: KDSError.self) { try x.dropout(probability: p, seed: 1) }
    }
    try check(
      OpCase("dropout", [map], large: [large]) {
        try $0[0].dropout(probability: 0.4, seed: 3)
      })
  }

  @Test func wrongShapesThrow() throws {
    let x = try Tensor.zeros(map)
    let calls: [() throws -> Any] = [
      { try x.softmax(axis: 4) }, { try Tensor.scalar(1).softmax() },
      { try x.layerNorm(weight: Tensor.zeros([4])) }, { try x.layerNorm(eps: -1) },
      { try x.groupNorm(groups: 4) }, { try x.groupNorm(groups: 0) },
      { try x.groupNorm(groups: 19, bias: Tensor.zeros([3])) },
      { try x.groupNorm(groups: 1, epsilon: .nan) },
      { try x.adaptiveAveragePool2d(Size2(0, 1)) },
      { try Tensor.zeros([2, 3]).adaptiveAveragePool2d(Size2(1)) },
      { try x.resizedNearest(Size2(0, 3)) }, { try x.cropped(Size2(7, 5)) },
      {
        try x.roiAlign(Tensor.zeros([1, 4]), grid: RoIGrid(height: 1, width: 1, spatialScale: 1))
      },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
  }
}
