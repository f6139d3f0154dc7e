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

/// Backbones against PyTorch and torchvision: `tools/fixtures/generate_backbones.py`.
@Suite struct BackboneParityTests {
  @Test(arguments: 0..<6)
  func featuresAndGradientsEqualPyTorch(index: Int) throws {
    let expected = try fixture().cases[index]
    let configuration = try StrictJSON.decode(
      expected.configuration, defaults: BackboneConfiguration(), what: "fixture")
    let backbone = try makeBackbone(configuration, Initializer(seed: 0))
    try fill(backbone, expected.tensors)
    backbone.setTraining(expected.training)

    let images = try pattern(expected.input, key: 1000, scale: 2)
    let features = try backbone.features(images)
    let last = features.last!.tensor
    try Tape.backward(from: last, seed: pattern(last.shape, key: 2000))

    #expect(features.map(\.name) == expected.features.map(\.name))
    for (feature, wanted) in zip(features, expected.features) {
      try compare(feature.tensor, wanted)
    }
    let parameters = Dictionary(uniqueKeysWithValues: backbone.namedParameters())
    #expect(Set(parameters.keys) == Set(expected.gradients.map(\.name)))
    for wanted in expected.gradients {
      try compare(#require(parameters[wanted.name]?.gradient, "\(wanted.name)"), wanted)
    }
    let buffers = Dictionary(uniqueKeysWithValues: backbone.namedBuffers())
    #expect(Set(buffers.keys) == Set(expected.buffers.map(\.name)))
    for wanted in expected.buffers { try compare(buffers[wanted.name]!, wanted) }
  }

  /// Tolerance: the fixture is in double precision; single precision, Winograd included, through up to
  /// thirteen layers and back stays within 2e-4 of the array's typical element. A wrong layer is off by
  /// the size of the elements themselves.
  private func compare(_ tensor: Tensor, _ wanted: Summary) throws {
    #expect(tensor.shape == wanted.shape, "\(wanted.name)")
    let values = try tensor.values().map(Double.init)
    let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
    #expect(abs(norm - wanted.norm) <= 2e-4 * wanted.norm, "\(wanted.name): norm \(norm)")
    let typical = wanted.norm / Double(values.count).squareRoot()
    let step = max(1, values.count / 12)
    for (position, sample) in wanted.samples.enumerated() {
      let found = values[position * step]
      #expect(abs(found - sample) <= 2e-4 * (typical + abs(sample)), "\(wanted.name) \(position)")
    }
  }

  private func fill(_ backbone: Backbone, _ rules: [Rule]) throws {
    let all = Dictionary(uniqueKeysWithValues: backbone.namedParameters() + backbone.namedBuffers())
    #expect(Set(all.keys) == Set(rules.map(\.name)))
    for rule in rules {
      let target = try #require(all[rule.name])
      let values = try pattern(target.shape, key: rule.key, scale: rule.scale, offset: rule.offset)
      target.floats.update(from: values.floats, count: target.count)
      target.markChanged()
    }
  }

  private func fixture() throws -> Fixture {
    try StrictJSON.decode(Fixture.self, fixtureText("backbones.json"), what: "backbones.json")
  }
}
