import KDSDetection
import KDSKernels
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

/// A network with one head in its first stage.
private func narrow(
  _ name: String = "swin_t", change: (inout BackboneConfiguration) -> Void = { _ in }
) throws -> Backbone {
  try makeTestBackbone(name, width: 0.34, change: change)
}

@Suite struct SwinTests {
  /// torchvision's published counts without the classifier (768 · 1000 + 1000) and the last norm
  /// (2 · 768); the four output norms have 2 · (96 + 192 + 384 + 768) = 2880.
  @Test(arguments: [("swin_t", 28_288_354), ("swin_s", 49_606_258)])
  func parameterCountsOfPublishedNetworks(name: String, count: Int) throws {
    let plain = try makeTestBackbone(name) { $0.output_norm = false }
    #expect(parameterCount(plain) == count - 769_000 - 1536)
    #expect(try parameterCount(makeTestBackbone(name)) == count - 769_000 - 1536 + 2880)
  }

  @Test(arguments: [(64, 96), (77, 33), (225, 4), (35, 239)])
  func mapsHaveTheSizesThatAreSaid(size: (Int, Int)) throws {
    let backbone = try narrow()
    let features = try Tape.withoutGrad { try backbone.features(testImages(2, size.0, size.1)) }
    let sizes = backbone.mapSizes(Size2(size.0, size.1))
    #expect(features.map(\.name) == ["stage1", "stage2", "stage3", "stage4"])
    #expect(features.map(\.stride) == [4, 8, 16, 32])
    #expect(features.map { $0.tensor.shape[1] } == [32, 64, 128, 256])
    for ((feature, description), size) in zip(zip(features, backbone.descriptions), sizes) {
      #expect(feature.tensor.shape == [2, description.channels, size.height, size.width])
      #expect(feature.tensor.layout == .preferred)
    }
  }

  @Test func widthScalesHeadsOf32Channels() throws {
    for (width, heads) in [(0.05, 1), (0.34, 1), (0.67, 2), (1, 3), (1.34, 4)] {
      let backbone = try makeTestBackbone("swin_t", width: width)
      #expect(backbone.descriptions.map(\.channels) == (0..<4).map { 32 * heads << $0 })
      let tables = backbone.namedParameters().filter { $0.name.hasSuffix("bias_table") }
      #expect(tables.count == 12)
      #expect(tables[0].tensor.shape == [169, heads])
      #expect(tables[11].tensor.shape == [169, 8 * heads])
    }
  }

  @Test func positionsAreThoseOfTorchvision() throws {
    let buffers = try narrow().namedBuffers()
    #expect(buffers.count == 12)
    let values = buffers[0].tensor.integerValues
    #expect(buffers[0].name == "features.1.0.attn.relative_position_index")
    #expect(values.count == 2401)
    // A token and itself, its right and its lower neighbour, and the farthest two.
    #expect([values[0], values[1], values[7], values[48], values[2352]] == [84, 83, 71, 0, 168])
  }

  @Test func frozenStagesAreEmbeddingAndStages() throws {
    let backbone = try narrow { $0.frozen_stages = 3 }
    let still = [
      "features.0.", "features.1.", "features.2.", "features.3.", "norm0.", "norm1.",
    ]
    for (name, tensor) in backbone.namedParameters() {
      #expect(tensor.requiresGrad == !still.contains { name.hasPrefix($0) }, "\(name)")
    }
    #expect(try narrow { $0.frozen_stages = -1 }.frozenStages == 0)
    let whole = try narrow { $0.frozen_stages = 5 }
    #expect(whole.namedParameters().allSatisfy { !$0.tensor.requiresGrad })
  }

  @Test func gradientReachesEveryParameter() throws {
    let backbone = try narrow("swin_s") { $0.in_channels = 4 }
    let features = try backbone.features(testImages(1, 65, 90, channels: 4))
    let sums = try features.map { try $0.tensor.squared().summed() }
    try Tape.backward(from: sums.dropFirst().reduce(sums[0]) { try $0.adding($1) })
    for (name, tensor) in backbone.namedParameters() {
      let values = try #require(tensor.gradient, "\(name)").values()
      #expect(values.contains { $0 != 0 } && values.allSatisfy { $0.isFinite }, "\(name)")
    }
  }

  @Test func dropPathLeavesWholeBranchesOut() throws {
    let backbone = try narrow { $0.drop_path = 0.5 }
    let images = try testImages(8, 32, 32)
    func last(_ seed: UInt64?) throws -> [Float] {
      backbone.stepSeed = seed
      return try Tape.withoutGrad { try backbone.features(images).last!.tensor.values() }
    }
    let whole = try last(nil)
    let (first, second) = (try last(1), try last(2))
    #expect(first != whole && first != second)
    #expect(try last(1) == first)
    backbone.setTraining(false)
    #expect(try last(1) == whole)
    // The same images one by one draw what the first image of a batch draws.
    backbone.setTraining(true)
    backbone.stepSeed = 1
    let alone = try Tape.withoutGrad {
      try backbone.features(testImages(8, 32, 32).sliced(axis: 0, from: 0, to: 1)).last!.tensor
        .values()
    }
    #expect(zip(alone, first).allSatisfy { abs($0 - $1) <= 1e-5 })
  }

  @Test func threadsChangeNothing() throws {
    let before = Threads.count
    defer { Threads.count = before }
    func gradients(_ threads: Int) throws -> [[Float]] {
      Threads.count = threads
      let backbone = try narrow()
      let map = try backbone.features(testImages(2, 100, 130)).last!.tensor
      try Tape.backward(from: map, seed: Initializer(seed: 5).normal(map.shape, deviation: 1))
      return try [map.values()]
        + backbone.namedParameters().map { try $0.tensor.gradient?.values() ?? [] }
    }
    #expect(try gradients(1) == gradients(2))
  }

  @Test(arguments: [
    ("swin_t", { (c: inout BackboneConfiguration) in c.norm = "group" }, "layer normalization"),
    ("swin_t", { $0.norm = "none" }, "norm \"none\""),
    ("swin_t", { $0.output_stride = 16 }, "output_stride 16 is not 32"),
    ("swin_t", { $0.dcn_stages = [2] }, "dcn_stages are for resnet18"),
    ("swin_s", { $0.drop_path = 1 }, "drop_path 1.0 must be"),
    ("swin_s", { $0.drop_path = .nan }, "drop_path nan must be"),
    ("resnet18", { $0.drop_path = 0.1 }, "drop_path is for swin_t, swin_s"),
    ("swin_t", { $0.frozen_stages = 6 }, "to 5"),
    ("swin", { _ in }, "\"swin_t\""),
  ])
  func badConfigurationsAreExplained(
    name: String, change: (inout BackboneConfiguration) -> Void, part: String
  ) throws {
    let error = #expect(throws: KDSError.self) { try makeTestBackbone(name, change: change) }
    #expect("\(error!)".contains(part), "\(error!)")
  }

  @Test func imagesSmallerThanAPatchThrow() throws {
    #expect(throws: KDSError.self) { try narrow().features(testImages(1, 3, 40)) }
    #expect(throws: KDSError.self) { try narrow().features(testImages(1, 32, 32, channels: 1)) }
  }
}
