import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

/// Odd sizes, one pixel, whole and partial channel blocks.
let mapShapes = [[2, 19, 3, 5], [1, 16, 4, 8], [3, 5, 1, 1], [1, 33, 5, 7], [2, 8, 9, 9]]
let manyPixels = [2, 40, 30, 31]

@Suite struct WeightedSquaresTests {
  @Test(arguments: mapShapes) func bothWeights(_ shape: [Int]) throws {
    let (plane, vector) = ([shape[0], 1, shape[2], shape[3]], [shape[0], shape[1]])
    let sizes = Reference.MapShape(shape[0], shape[1], shape[2] * shape[3])
    try check(
      OpCase(
        "weighted_squared_error", [shape, shape, plane, vector],
        large: [manyPixels, manyPixels, [2, 1, 30, 31], [2, 40]],
        reference: {
          [
            Float(
              0.01 * Reference.weightedSquares($0[0], $0[1], sizes, spatial: $0[2], channels: $0[3])
            )
          ]
        }, tolerance: 2e-5, gradients: [0, 1], gradientTolerance: 2e-3, blocked: [0, 1]
      ) {
        try $0[0].weightedSquaredError(
          teacher: $0[1], spatial: $0[2], channels: $0[3], factor: 0.01)
      })
  }

  @Test func weightsAreOptional() throws {
    let shape = [2, 19, 3, 5]
    let sizes = Reference.MapShape(2, 19, 15)
    try check(
      OpCase(
        "without weights", [shape, shape],
        reference: { [Float(0.01 * Reference.weightedSquares($0[0], $0[1], sizes))] },
        gradientTolerance: 2e-3
      ) { try $0[0].weightedSquaredError(teacher: $0[1], factor: 0.01) })
    try check(
      OpCase(
        "spatial", [shape, shape, [2, 1, 3, 5]],
        reference: {
          [Float(0.01 * Reference.weightedSquares($0[0], $0[1], sizes, spatial: $0[2]))]
        },
        gradients: [0], gradientTolerance: 2e-3, blocked: [0, 1]
      ) { try $0[0].weightedSquaredError(teacher: $0[1], spatial: $0[2], factor: 0.01) })
    try check(
      OpCase(
        "channels", [shape, shape, [2, 19]],
        reference: {
          [Float(0.01 * Reference.weightedSquares($0[0], $0[1], sizes, channels: $0[2]))]
        }, gradients: [0], gradientTolerance: 2e-3, blocked: [0, 1]
      ) { try $0[0].weightedSquaredError(teacher: $0[1], channels: $0[2], factor: 0.01) })
  }

  @Test func emptyAndWrongInputs() throws {
    for shape in [[0, 3, 2, 2], [2, 0, 2, 2], [2, 3, 0, 2]] {
      let map = try Tensor.zeros(shape)
      map.requiresGrad = true
      let loss = try map.weightedSquaredError(teacher: Tensor.zeros(shape))
      #expect(loss.item == 0)
      try Tape.backward(from: loss)
      #expect(map.gradient?.shape == shape)
    }
    let map = try Tensor.zeros([2, 3, 4, 5])
    let calls: [() throws -> Tensor] = [
      { try map.weightedSquaredError(teacher: Tensor.zeros([2, 3, 5, 4])) },
      { try map.weightedSquaredError(teacher: Tensor.zeros([2, 4, 4, 5])) },
      { try Tensor.zeros([2, 3]).weightedSquaredError(teacher: Tensor.zeros([2, 3])) },
      { try map.weightedSquaredError(teacher: map, spatial: Tensor.zeros([2, 3, 4, 5])) },
      { try map.weightedSquaredError(teacher: map, channels: Tensor.zeros([3])) },
      { try map.weightedSquaredError(teacher: map, factor: .nan) },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
  }
}

/// Reference sizes of a map's shape.
private func sizes(_ shape: [Int]) -> Reference.MapShape {
  Reference.MapShape(shape[0], shape[1], shape[2] * shape[3])
}

/// A loss of two maps, by its naive version.
private func pairCase(
  _ name: String, _ shape: [Int], tolerance: Float = 2e-5,
  _ reference: @escaping ([Float], [Float]) -> Double,
  _ build: @escaping (Tensor, Tensor) throws -> Tensor
) -> OpCase {
  OpCase(
    name, [shape, shape], large: [manyPixels, manyPixels],
    reference: { [Float(reference($0[0], $0[1]))] }, tolerance: tolerance, gradients: [0],
    gradientTolerance: 2e-3
  ) { try build($0[0], $0[1]) }
}

@Suite struct FeatureMapLossTests {
  @Test(arguments: mapShapes, [DivergenceForm.kl, .ce])
  func channelWise(_ shape: [Int], _ form: DivergenceForm) throws {
    let rows = Double(shape[0] * shape[1])
    for temperature in [1, 2.5] {
      try check(
        pairCase(
          "cwd \(form) \(temperature)", shape,
          {
            temperature * temperature / rows
              * Reference.channelWiseDivergence(
                $0, $1, sizes(shape), temperature: temperature, entropy: form == .kl)
          }
        ) {
          try $0.channelWiseDivergence(teacher: $1, temperature: Float(temperature), form: form)
        })
    }
  }

  @Test(arguments: mapShapes) func pearson(_ shape: [Int]) throws {
    let count = Double(shape.reduce(1, *))
    try check(
      pairCase(
        "pkd", shape, { 0.5 / count * Reference.pearson($0, $1, sizes(shape)) },
        { try $0.pearson(teacher: $1) }))
    try check(
      pairCase(
        "pkd mean", shape, { 1 / count * Reference.pearson($0, $1, sizes(shape)) },
        { try $0.pearson(teacher: $1, reduction: .mean) }))
  }

  @Test(arguments: mapShapes) func normalized(_ shape: [Int]) throws {
    let size = shape[1] * shape[2] * shape[3]
    try check(
      pairCase(
        "fitnets", shape,
        { Reference.unitDistances($0, $1, images: shape[0], size: size) / Double(shape[0]) },
        { try $0.normalizedSquaredError(teacher: $1) }))
  }

  @Test(arguments: mapShapes, [AttentionForm.code, .paper])
  func attention(_ shape: [Int], _ form: AttentionForm) throws {
    let (images, area) = (shape[0], shape[2] * shape[3])
    // The teacher has other channels.
    let other = [images, shape[1] + 3, shape[2], shape[3]]
    try check(
      OpCase(
        "attention_transfer \(form)", [shape, other],
        large: [manyPixels, [2, 43, 30, 31]],
        reference: {
          let s = Reference.means($0[0], sizes(shape)) { $0 * $0 }
          let t = Reference.means($0[1], sizes(other)) { $0 * $0 }
          let total = Reference.unitDistances(
            s, t, images: images, size: area, squared: form == .code)
          return [Float(total / Double(form == .code ? images * area : images))]
        }, tolerance: 2e-5, gradients: [0], gradientTolerance: 2e-3
      ) { try $0[0].attentionTransfer(teacher: $0[1], form: form) })
  }

  @Test(arguments: mapShapes) func focalGlobal(_ shape: [Int]) throws {
    let plane = [shape[0], 1, shape[2], shape[3]]
    let options = FocalGlobalOptions(temperature: 0.8, gamma: 0.02, relation: 0.01, factor: 0.5)
    try check(
      OpCase(
        "focal_global", [shape, shape, plane],
        large: [manyPixels, manyPixels, [2, 1, 30, 31]], range: -1...1,
        reference: {
          let none = [Float](repeating: 0, count: shape[0] * shape[1])
          let sum = Reference.focalGlobal(
            $0[0], $0[1], sizes(shape), mask: $0[2], shift: none, temperature: 0.8, gamma: 0.02,
            relation: 0.01)
          return [Float(0.5 * sum)]
        },
        // Sums of some hundred squares; |s| has a kink at 0 and |A_S - A_T| where attentions meet.
        tolerance: 2e-5, gradients: [0], gradientTolerance: 1e-2,
        skip: { $0 == 0 && abs($1) < 0.02 }, blocked: [0, 1]
      ) { try $0[0].focalGlobal(teacher: $0[1], mask: $0[2], options) })
  }

  /// The relation term with both context blocks, beside the same put together from operations.
  @Test(arguments: mapShapes) func focalGlobalWithContext(_ shape: [Int]) throws {
    let (c, k) = (shape[1], max(2, shape[1] / 2))
    let block = [[1, c, 1, 1], [k, c], [k], [k], [k], [c, k], [c]]
    let options = FocalGlobalOptions(temperature: 0.5, gamma: 0, relation: 0.01)
    var results: [[[Float]]] = []
    for fused in [true, false] {
      for layout in [Layout.plain, .blocked(8), .blocked(16)] {
        let inputs = try ([shape, shape] + block + block).enumerated().map { index, shape in
          let made = try pattern(shape, key: UInt64(index), scale: 2)
          let leaf = index < 2 ? try made.inLayout(layout) : made
          leaf.requiresGrad = index != 1
          return leaf
        }
        let (student, teacher) = (inputs[0], inputs[1])
        let (own, other) = (Array(inputs[2..<9]), Array(inputs[9...]))
        let loss: Tensor
        if fused {
          let mask = try Tensor.zeros([shape[0], 1, shape[2], shape[3]])
          loss = try student.focalGlobal(
            teacher: teacher, mask: mask, blocks: (ContextBlock(own), ContextBlock(other)), options)
        } else {
          func related(_ map: Tensor, _ parts: [Tensor]) throws -> Tensor {
            let added = try map.contextPool(weight: parts[0]).linear(parts[1], bias: parts[2])
              .layerNorm(weight: parts[3], bias: parts[4]).relu().linear(parts[5], bias: parts[6])
            return try map.adding(added.reshaped([shape[0], c, 1, 1]))
          }
          loss = try related(student, own)
            .squaredError(related(teacher, other), reduction: .sum).multiplied(by: 0.01)
        }
        try Tape.backward(from: loss)
        results.append(
          [[loss.item]]
            + (try inputs.enumerated().filter { $0.offset != 1 }.map {
              try $0.element.gradient?.values() ?? []
            }))
      }
    }
    for (number, result) in results.enumerated() {
      for (index, values) in result.enumerated() {
        let wanted = results[3][index]
        #expect(values.count == wanted.count)
        let size = wanted.map(abs).max() ?? 0
        let gap = zip(values, wanted).map { abs($0 - $1) }.max() ?? 0
        // Sums of up to a thousand products in other orders; biases before a norm nearly cancel.
        #expect(gap <= 2e-4 * size + 1e-5, "run \(number), result \(index): \(gap) of \(size)")
      }
    }
  }

  @Test(arguments: mapShapes) func contextPool(_ shape: [Int]) throws {
    try check(
      OpCase(
        "context_pool", [shape, [1, shape[1], 1, 1]], large: [manyPixels, [1, 40, 1, 1]],
        range: -1...1,
        reference: { Reference.contextPool($0[0], weight: $0[1], sizes(shape)) },
        gradientTolerance: 2e-3
      ) { try $0[0].contextPool(weight: $0[1]) })
  }

  @Test func emptyMaps() throws {
    let losses: [(Tensor) throws -> Tensor] = [
      { try $0.channelWiseDivergence(teacher: $0.detached()) },
      { try $0.pearson(teacher: $0.detached()) },
      { try $0.normalizedSquaredError(teacher: $0.detached()) },
      { try $0.attentionTransfer(teacher: $0.detached()) },
      {
        try $0.focalGlobal(
          teacher: $0.detached(), mask: Tensor.zeros([$0.shape[0], 1, $0.shape[2], $0.shape[3]]))
      },
    ]
    for shape in [[0, 3, 2, 2], [2, 0, 2, 2], [2, 3, 0, 2]] {
      for (index, loss) in losses.enumerated() {
        let map = try Tensor.zeros(shape)
        map.requiresGrad = true
        let value = try loss(map)
        #expect(value.item == 0, "loss \(index) of \(shape)")
        try Tape.backward(from: value)
        #expect(map.gradient?.shape == shape, "loss \(index) of \(shape)")
      }
    }
  }
}
