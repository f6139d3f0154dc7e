import Glibc
import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

private func sigmoid(_ x: Double) -> Double { 1 / (1 + Glibc.exp(-x)) }

private func entropy(_ x: Double, _ t: Double) -> Double {
  max(x, 0) - x * t + log1p(Glibc.exp(-abs(x)))
}

private func softmax(_ z: [Float], _ temperature: Double) -> [Double] {
  let powers = z.map { Glibc.exp(Double($0) / temperature) }
  let total = powers.reduce(0, +)
  return powers.map { $0 / total }
}

/// |sigma(x) - t|^beta BCE(x, t) by the formula.
private func quality(_ x: Float, _ t: Double, _ beta: Double) -> Double {
  Glibc.pow(abs(sigmoid(Double(x)) - t), beta) * entropy(Double(x), t)
}

@Suite struct QualityLossTests {
  /// Targets stay below sigma(x), so that no difference is taken across the kink.
  @Test(arguments: [0, 0.5, 1, 2, 3] as [Float]) func denseTargets(_ beta: Float) throws {
    for kind in [SoftTargets.probabilities, .logits] {
      let (factor, shift): (Float, Float) = kind == .logits ? (1, -2) : (0.4, 0)
      try check(
        OpCase(
          "quality_focal \(beta) \(kind)", [[2, 5, 3, 2], [2, 5, 3, 2]],
          large: [[2, 40, 30, 31], [2, 40, 30, 31]], range: 0.02...1,
          reference: { inputs in
            let total = zip(inputs[0], inputs[1]).reduce(0.0) {
              let y = Double($1.1 * factor + shift)
              return $0 + quality($1.0, kind == .logits ? sigmoid(y) : y, Double(beta))
            }
            return [Float(total)]
          }, gradients: [0], gradientTolerance: 2e-3
        ) {
          let targets = try $0[1].multiplied(by: factor).adding(Tensor.scalar(shift))
          return try $0[0].qualityFocal(targets, beta: beta, kind: kind, reduction: .sum)
        })
    }
  }

  @Test func temperatureAndSharedWeights() throws {
    let shape = [2, 3, 2, 5]
    for weightShape in [[2], [2, 1, 2, 5], shape] {
      try check(
        OpCase(
          "quality_focal weights", [shape, shape, weightShape], range: 0.5...2,
          reference: { inputs in
            (0..<2).map { image in
              var total = 0.0
              for channel in 0..<3 {
                for place in 0..<10 {
                  let index = (image * 3 + channel) * 10 + place
                  let own = weightShape == [2] ? image : image * 10 + place
                  let weight = inputs[2][weightShape == shape ? index : own]
                  let t = sigmoid(-Double(inputs[1][index]) / 3)
                  total += Double(weight) * quality(inputs[0][index] / 3, t, 1)
                }
              }
              return Float(total)
            }
          }, gradients: [0], gradientTolerance: 2e-3,
          blocked: []
        ) {
          try $0[0].qualityFocal(
            $0[1].negated(), weights: $0[2], beta: 1, kind: .logits, temperature: 3,
            reduction: .none)
        })
    }
  }

  /// d/dx of |s - t| BCE(x, t) = sign(s - t) s (1 - s) BCE + |s - t| (s - t), and 0 at s = t.
  @Test func gradientOfTheModulatingFactor() throws {
    let x = try tensor([1.5, -2, 0], [3])
    x.requiresGrad = true
    let t: [Float] = [0.2, 0.9, 0.5]
    let loss = try x.qualityFocal(tensor(t, [3]), beta: 1, reduction: .sum)
    try Tape.backward(from: loss)
    let found = try x.gradient!.values()
    for (index, value) in [1.5, -2.0].enumerated() {
      let (s, target) = (sigmoid(value), Double(t[index]))
      let sign: Double = s > target ? 1 : -1
      let wanted =
        sign * s * (1 - s) * entropy(value, target) + abs(s - target) * (s - target)
      #expect(abs(Double(found[index]) - wanted) < 1e-6)
    }
    #expect(found[2] == 0)
  }

  @Test func labelsWithQualitiesEqualDenseTargets() throws {
    let logits = OpCase("", [[5, 19]]) { $0[0] }
    let labels = try integers([-1, 0, 18, -2, 400], [5])
    let qualities = try tensor([0.3, 0.25, 1, 0.5, 0.5], [5])
    for beta in [1, 2] as [Float] {
      try check(
        OpCase("quality_focal labels", logits.shapes) {
          try $0[0].qualityFocal(labels: labels, qualities: qualities, beta: beta, factor: 0.5)
        })
      let x = try Tensor((0..<95).map { Float($0 % 13) / 3 - 2 }, shape: [5, 19])
      let goals = try Tensor.zeros([3, 19])
      goals.floats[19] = 0.25
      goals.floats[2 * 19 + 18] = 1
      let first = try Tensor(Array(x.values()[..<57]), shape: [3, 19])
      let dense = try first.qualityFocal(goals, beta: beta, reduction: .sum).item
      let sparse = try x.qualityFocal(labels: labels, qualities: qualities, beta: beta).item
      #expect(abs(dense - sparse) < 1e-5 * dense)
    }
  }

  @Test func distributionFocal() throws {
    let targets: [Float] = [0, 0.25, 3, 4.75, 7, 1]
    for reduction in [Reduction.paper, .mean, .sum, .none] {
      try check(
        OpCase(
          "distribution_focal \(reduction)", [[6, 8], [6]], range: 0...2,
          reference: { inputs in
            let rows = (0..<6).map { row -> Double in
              let p = softmax(Array(inputs[0][(row * 8)..<(row * 8 + 8)]), 1)
              let left = min(Int(targets[row]), 6)
              let share = Double(targets[row]) - Double(left)
              let loss = -(1 - share) * log(p[left]) - share * log(p[left + 1])
              return Double(inputs[1][row]) * loss
            }
            let total = rows.reduce(0, +)
            let weights = inputs[1].reduce(0.0) { $0 + Double($1) }
            switch reduction {
            case .paper: return [Float(total / weights)]
            case .mean: return [Float(total / 6)]
            case .sum: return [Float(total)]
            case .none: return rows.map(Float.init)
            }
          }, gradients: [0]
        ) {
          try $0[0].distributionFocal(
            tensor(targets, [6]), weights: $0[1], reduction: reduction)
        })
    }
  }

  @Test(arguments: [1, 2, 10] as [Float]) func divergence(_ temperature: Float) throws {
    try check(
      OpCase(
        "divergence \(temperature)", [[3, 4, 17], [3, 4, 17], [3]],
        large: [
          [90, 4, 91], [90, 4, 91], [90],
        ], range: 0...3,
        reference: { inputs in
          (0..<12).map { row in
            let slice = (row * 17)..<(row * 17 + 17)
            let t = softmax(Array(inputs[1][slice]), Double(temperature))
            let s = softmax(Array(inputs[0][slice]), Double(temperature))
            let loss = zip(t, s).reduce(0.0) { $0 + $1.0 * log($1.0 / $1.1) }
            let square = Double(temperature * temperature)
            return Float(Double(inputs[2][row / 4]) * square * loss)
          }
        }, gradients: [0], gradientTolerance: 2e-3
      ) {
        try $0[0].divergence(
          teacher: $0[1], weights: $0[2], temperature: temperature, reduction: .none)
      })
  }

  /// Close distributions: KL is about variance / 2, far below the rounding of an entropy of order 1.
  @Test func divergenceOfCloseDistributions() throws {
    let teacher = (0..<17).map { Float($0 % 5) / 4 }
    let student = teacher.enumerated().map { $1 + 1e-3 * Float($0 % 3) }
    let (p, q) = (softmax(teacher, 1), softmax(student, 1))
    let exact = zip(p, q).reduce(0.0) { $0 + $1.0 * log($1.0 / $1.1) }
    let found = try tensor(student, [1, 17]).divergence(teacher: tensor(teacher, [1, 17])).item
    // The logits' own rounding, 1e-7 of 1e-3, counts twice.
    #expect(abs(Double(found) - exact) < 1e-3 * exact)
    let far = try tensor([80, -80], [1, 2]).divergence(teacher: tensor([-80, 80], [1, 2])).item
    #expect(abs(far - 160) < 1e-3)
  }

  @Test func emptyAndWrongInputs() throws {
    let rows = try Tensor.zeros([0, 4])
    rows.requiresGrad = true
    let none = try Tensor.zeros([0])
    for loss in try [
      rows.qualityFocal(rows), rows.distributionFocal(none, weights: none),
      rows.divergence(teacher: rows),
      rows.qualityFocal(labels: Tensor.zeros([0], dtype: .int64), qualities: none),
    ] {
      #expect(loss.item == 0)
      try Tape.backward(from: loss)
    }
    let x = try Tensor.zeros([2, 4])
    let calls: [() throws -> Any] = [
      { try x.qualityFocal(rows) }, { try x.qualityFocal(x, beta: -1) },
      { try x.qualityFocal(x, weights: Tensor.zeros([3])) },
      { try x.qualityFocal(x, temperature: 0) },
      { try x.qualityFocal(labels: integers([0], [1]), qualities: none) },
      { try x.distributionFocal(tensor([0, 3.5], [2])) },
      { try x.distributionFocal(tensor([0, .nan], [2])) },
      { try x.distributionFocal(Tensor.zeros([3])) },
      { try x.divergence(teacher: rows) },
      { try x.divergence(teacher: x, weights: Tensor.zeros([3])) },
      { try x.divergence(teacher: x, temperature: .nan) },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: KDSError.self, "call \(index)") { _ = try call() }
    }
  }
}
