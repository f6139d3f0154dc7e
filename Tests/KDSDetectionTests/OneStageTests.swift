import KDSKernels
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

@testable import KDSDetection

/// A GFL of a few thousand parameters on two levels.
private func tinyGFL(_ norm: String = "group") throws -> GFL {
  var c = GFLConfiguration()
  (c.num_classes, c.image_min, c.image_max) = (3, 32, 64)
  (c.backbone.width, c.backbone.output_stride) = (0.125, 16)
  (c.neck.channels, c.neck.extra) = (16, "none")
  (c.anchor_sizes, c.head.convs, c.head.reg_max) = ([12, 24, 40], 2, 5)
  (c.neck.skip, c.head.norm) = (0, norm)
  return try GFL(c, seed: 1)
}

@Suite struct TowerTests {
  @Test(arguments: ["group", "none", "batch"]) func tapsChangeNothing(norm: String) throws {
    let model = try tinyGFL(norm)
    model.setTraining(false)
    let batch = try model.prepare(tinyBatch())
    let fused = try model.dense(batch)
    let shown = try model.withTowerTaps(true) { try model.dense(batch) }
    #expect(fused.headTaps.count == 6 && shown.headTaps.count == 6 + 12)
    #expect(shown.taps.map(\.name) == model.taps.map(\.name))
    for (name, tensor) in fused.headTaps {
      let other = try #require(shown.headTaps.first { $0.name == name }).tensor
      // A ReLU rounds nothing.
      #expect(try tensor.values() == other.values(), "\(name)")
    }
    let tower = try #require(shown.headTaps.first { $0.name == "head.regression.conv1.p3" })
    // Before the ReLU: about half of it is negative.
    #expect(try tower.tensor.values().contains { $0 < 0 })
    #expect(try model.dense(batch).headTaps.count == 6)
  }

  @Test func detectorsWithoutTowersRunAsEver() throws {
    let model = try tinyDetector()
    let batch = try model.prepare(tinyBatch())
    let taps = try model.withTowerTaps(true) { try model.dense(batch).taps.map(\.name) }
    #expect(taps == model.taps.map(\.name))
  }

  @Test(arguments: ["group", "none", "batch"])
  func theRestOfAHeadGoesBackToItsInputAlone(norm: String) throws {
    let model = try tinyGFL(norm)
    for (_, tensor) in model.head.namedParameters() where tensor.rank == 4 {
      // Fresh heads say almost nothing.
      for index in 0..<tensor.count { tensor.floats[index] *= 10 }
      tensor.markChanged()
    }
    func sum(_ map: Tensor) throws -> Tensor {
      let outputs = try model.resumedHead(map, branch: "regression", after: 1, level: 1)
      return try outputs[0].tensor.squared().summed()
    }
    var random = CounterRandom(seed: 4)
    let values = (0..<2 * 16 * 3 * 3).map { _ in random.normal() }
    let map = try Tensor(values, shape: [2, 16, 3, 3])
    map.requiresGrad = true
    try Tape.backward(from: sum(map))
    let gradient = try #require(map.gradient).values()
    let norm = gradient.reduce(0) { $0 + $1 * $1 }.squareRoot()
    func at(_ step: Float) throws -> Float {
      let moved = zip(values, gradient).map { $0 + step * $1 / norm }
      return try Tape.withoutGrad { try sum(Tensor(moved, shape: map.shape)).item }
    }
    let slope = try (at(1e-2) - at(-1e-2)) / 2e-2
    // ReLUs that switch within the step.
    #expect(abs(slope - norm) < 0.03 * norm, "\(slope), gradient \(norm)")
    #expect(model.namedParameters().allSatisfy { $0.tensor.gradient == nil })
    #expect(model.head.namedParameters().allSatisfy { $0.tensor.requiresGrad })
    #expect(model.isTraining && model.head.classification.isTraining)
  }
}

@Suite struct BoxCodingTests {
  static let codings: [BoxCoding] = [
    .deltas(SIMD4(10, 10, 5, 5)), .distances, .distribution(bins: 5),
  ]
  private let anchors: [Float] = [0, 0, 8, 8, 10, -6, 30, 14, 3, 5, 15, 41]
  private let strides: [Float] = [8, 8, 8]

  @Test(arguments: codings) func memoryAndTapeAgreeAndGradientsHold(_ coding: BoxCoding) throws {
    var random = CounterRandom(seed: 9)
    let values = (0..<3 * coding.columns).map { _ in random.uniform(-1, 1) }
    var plain = [Float](repeating: 0, count: 12)
    coding.decode(values, anchors: anchors, stride: 8, &plain, 3)
    let boxes = try coding.decoded(
      Tensor(values, shape: [3, coding.columns]), anchors: anchors, strides: strides)
    for (a, b) in zip(try boxes.values(), plain) {
      // A few roundings of numbers up to 50.
      #expect(abs(a - b) < 2e-5)
    }
    let failures = try OpCase("decoded", [[3, coding.columns]], range: -1...1) {
      try coding.decoded($0[0], anchors: anchors, strides: strides)
    }.failures()
    #expect(failures.isEmpty, "\(failures)")
  }

  @Test func distancesGoToTheirSides() throws {
    let boxes = try BoxCoding.distances.decoded(
      Tensor([1, 2, 3, 0.5], shape: [1, 4]), anchors: [0, 0, 8, 8], strides: [8])
    #expect(try boxes.values() == [-4, -12, 28, 8] as [Float])
    // Bins 0, 1, 2 with all weight on 1, 0, 2, 1.
    let logits: [Float] = [0, 99, 0, 99, 0, 0, 0, 0, 99, 0, 99, 0]
    let found = try BoxCoding.distribution(bins: 3).decoded(
      Tensor(logits, shape: [1, 12]), anchors: [0, 0, 8, 8], strides: [16])
    #expect(try found.values() == [-12, 4, 36, 20] as [Float])
  }

  @Test func noPositivesGiveNoBoxes() throws {
    for coding in Self.codings {
      let none = try Tensor.zeros([0, coding.columns])
      #expect(try coding.decoded(none, anchors: [], strides: []).shape == [0, 4])
    }
  }
}
