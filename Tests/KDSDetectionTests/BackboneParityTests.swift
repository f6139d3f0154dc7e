import KDSDetection
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

private struct Summary: Codable {
  var name: String
  var shape: [Int]
  var norm: Double
  var samples: [Double]
}

private struct Rule: Codable {
  var name: String
  var key: UInt64
  var scale: Float
  var offset: Float
}

private struct Case: Codable {
  var configuration: String
  var training: Bool
  var input: [Int]
  var tensors: [Rule]
  var features, gradients, buffers: [Summary]
}

private struct Fixture: Codable {
  var versions: [String: String]
  var cases: [Case]
}

/// Backbones against PyTorch and torchvision: `tools/fixtures/generate_backbones.py`,
/// `generate_resnets.py` and `generate_swins.py`.
@Suite struct BackboneParityTests {
  @Test(arguments: 0..<6)
  func featuresAndGradientsEqualPyTorch(index: Int) throws {
    try compareCase("backbones.json", index)
  }

  /// In single precision torchvision's own ResNeXt-50 is as far from its double precision as the second
  /// tolerance: fifty layers and back, with statistics of 18 values in the last ones.
  @Test(arguments: [1e-4, 5e-4, 1e-4, 1e-4].enumerated().map { ($0.offset, $0.element) })
  func residualNetworksEqualTorchvision(index: Int, tolerance: Double) throws {
    try compareCase("resnets.json", index, tolerance)
  }

  /// Fourteen blocks with a softmax each, in single precision.
  @Test(arguments: 0..<2)
  func swinTransformersEqualTorchvision(index: Int) throws {
    try compareCase("swins.json", index, 1e-4, everyFeature: true)
  }

  /// The gradients are those of the last feature, or of the sum over every one, times a pattern.
  private func compareCase(
    _ file: String, _ index: Int, _ tolerance: Double = 2e-4, everyFeature: Bool = false
  ) throws {
    let expected = try fixture(file).cases[index]
    let configuration = try StrictJSON.decode(
      expected.configuration, defaults: BackboneConfiguration(), what: "fixture")
    let backbone = try makeBackbone(configuration, Initializer(seed: 0))
    try fill(backbone, expected.tensors)
    backbone.setTraining(expected.training)

    let images = try pattern(expected.input, key: 1000, scale: 2)
    let features = try backbone.features(images)
    if everyFeature {
      let parts = try features.enumerated().map { place, feature in
        try feature.tensor.multiplied(by: pattern(feature.tensor.shape, key: UInt64(2000 + place)))
          .summed()
      }
      try Tape.backward(from: parts.dropFirst().reduce(parts[0]) { try $0.adding($1) })
    } else {
      let last = features.last!.tensor
      try Tape.backward(from: last, seed: pattern(last.shape, key: 2000))
    }

    #expect(features.map(\.name) == expected.features.map(\.name))
    for (feature, wanted) in zip(features, expected.features) {
      try compare(feature.tensor, wanted, tolerance)
    }
    let parameters = Dictionary(uniqueKeysWithValues: backbone.namedParameters())
    #expect(Set(parameters.keys) == Set(expected.gradients.map(\.name)))
    for wanted in expected.gradients {
      try compare(#require(parameters[wanted.name]?.gradient, "\(wanted.name)"), wanted, tolerance)
    }
    let buffers = Dictionary(uniqueKeysWithValues: floatBuffers(backbone))
    #expect(Set(buffers.keys) == Set(expected.buffers.map(\.name)))
    for wanted in expected.buffers {
      try compare(buffers[wanted.name]!, wanted, tolerance)
    }
  }

  /// Usual tolerance: the fixture is in double precision; single precision, Winograd included, through up to
  /// thirteen layers and back stays within 2e-4 of the array's typical element. A wrong layer is off by
  /// the size of the elements themselves.
  private func compare(_ tensor: Tensor, _ wanted: Summary, _ tolerance: Double) throws {
    #expect(tensor.shape == wanted.shape, "\(wanted.name)")
    let values = try tensor.values().map(Double.init)
    let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
    #expect(abs(norm - wanted.norm) <= tolerance * wanted.norm, "\(wanted.name): norm \(norm)")
    let typical = wanted.norm / Double(values.count).squareRoot()
    let step = max(1, values.count / 12)
    for (position, sample) in wanted.samples.enumerated() {
      let found = values[position * step]
      #expect(
        abs(found - sample) <= tolerance * (typical + abs(sample)), "\(wanted.name) \(position)")
    }
  }

  private func fill(_ backbone: Backbone, _ rules: [Rule]) throws {
    let all = Dictionary(
      uniqueKeysWithValues: backbone.namedParameters() + floatBuffers(backbone))
    #expect(Set(all.keys) == Set(rules.map(\.name)))
    for rule in rules {
      let target = try #require(all[rule.name])
      let values = try pattern(target.shape, key: rule.key, scale: rule.scale, offset: rule.offset)
      target.floats.update(from: values.floats, count: target.count)
      target.markChanged()
    }
  }

  /// Buffers of whole numbers are constants.
  private func floatBuffers(_ backbone: Backbone) -> [(name: String, tensor: Tensor)] {
    backbone.namedBuffers().filter { $0.tensor.dtype == .float32 }
  }

  private func fixture(_ file: String) throws -> Fixture {
    try StrictJSON.decode(Fixture.self, fixtureText(file), what: file)
  }
}
