import KDSDetection
import KDSNN
import KDSTensor
import Testing

func makeTestBackbone(
  _ name: String, width: Double = 1, norm: String = "batch", seed: UInt64 = 3,
  change: (inout BackboneConfiguration) -> Void = { _ in }
) throws -> Backbone {
  var configuration = BackboneConfiguration()
  configuration.name = name
  configuration.width = width
  configuration.norm = norm
  change(&configuration)
  return try makeBackbone(configuration, Initializer(seed: seed))
}

/// Smooth, different everywhere, about unit scale.
func testImages(_ count: Int, _ height: Int, _ width: Int, channels: Int = 3) throws -> Tensor {
  try Initializer(seed: 11).normal([count, channels, height, width], deviation: 1)
}

func parameterCount(_ module: Module) -> Int {
  module.namedParameters().reduce(0) { $0 + $1.tensor.count }
}

@Suite struct BackboneTests {
  /// Convolution parts, counted by hand from the layer tables: Σ K·C/groups·k² + K.
  @Test(arguments: [
    ("alexnet", 34_944 + 307_456 + 885_120 + 663_936 + 442_624),
    ("vgg_m", 14_208 + 614_656 + 1_180_160 + 2_359_808 + 2_359_808),
    // The 13 convolutions of torchvision's vgg16.
    ("vgg16", 14_714_688),
  ])
  func parameterCountsOfPublishedNetworks(name: String, count: Int) throws {
    #expect(try parameterCount(makeTestBackbone(name)) == count)
  }

  @Test(arguments: [(1.0, 700_000...1_000_000), (0.25, 50_000...80_000)])
  func smallNetworkHasTheSizeItPromises(width: Double, range: ClosedRange<Int>) throws {
    let count = try parameterCount(makeTestBackbone("resnet_small", width: width))
    #expect(range.contains(count), "\(count) parameters")
  }

  /// Rows of the last map for short sides 344, 600 and 688 with Caffe's rounding.
  @Test(arguments: [
    ("vgg16", true, [22, 38, 43]), ("alexnet", true, [23, 39, 44]),
    ("alexnet", false, [21, 37, 42]), ("vgg_m", true, [20, 36, 42]),
  ])
  func caffeRoundingGivesThePublishedSizes(name: String, padded: Bool, rows: [Int]) throws {
    let backbone = try makeTestBackbone(name, width: 0.05) { $0.padded = padded }
    let found = [344, 600, 688].map { backbone.mapSizes(Size2($0)).last?.height }
    #expect(found == rows)
  }

  @Test(arguments: ["resnet_small", "alexnet", "vgg_m", "vgg16"], [(344, 96), (131, 157)])
  func mapsHaveTheSizesThatAreSaid(name: String, size: (Int, Int)) throws {
    let backbone = try makeTestBackbone(name, width: 0.1)
    let features = try Tape.withoutGrad { try backbone.features(testImages(1, size.0, size.1)) }
    let sizes = backbone.mapSizes(Size2(size.0, size.1))
    #expect(features.count == backbone.descriptions.count)
    #expect(sizes.count == features.count)
    for ((feature, description), expected) in zip(zip(features, backbone.descriptions), sizes) {
      #expect(feature.name == description.name)
      #expect(feature.stride == description.stride)
      #expect(feature.tensor.shape == [1, description.channels, expected.height, expected.width])
    }
  }

  @Test func stridesAndNamesOfTheFeatures() throws {
    func strides(_ name: String) throws -> [Int] {
      try makeTestBackbone(name, width: 0.1).descriptions.map(\.stride)
    }
    #expect(try strides("vgg16") == [1, 2, 4, 8, 16])
    #expect(try strides("alexnet") == [4, 8, 16, 16, 16])
    #expect(try strides("vgg_m") == [2, 8, 16, 16, 16])
    #expect(try strides("resnet_small") == [4, 8, 8])
    for (wanted, result) in [(4, [4, 4, 4]), (8, [4, 8, 8]), (16, [4, 8, 16])] {
      let backbone = try makeTestBackbone("resnet_small", width: 0.1) { $0.output_stride = wanted }
      #expect(backbone.descriptions.map(\.stride) == result)
    }
  }

  @Test func headsScaleWithTheWidth() throws {
    let full = try makeTestBackbone("vgg_m", width: 1).headDefaults
    #expect(
      full == RoIHeadDefaults(poolSize: 6, hidden: [4096, 1024], dropout: 0.5, rpnChannels: 256))
    let quarter = try makeTestBackbone("vgg16", width: 0.25).headDefaults
    #expect(
      quarter
        == RoIHeadDefaults(poolSize: 7, hidden: [1024, 1024], dropout: 0.5, rpnChannels: 128))
  }

  @Test(arguments: [
    ("resnet_small", "batch"), ("resnet_small", "frozen_batch"), ("resnet_small", "none"),
    ("resnet_small", "group"), ("alexnet", "batch"), ("vgg_m", "batch"), ("vgg16", "batch"),
  ])
  func gradientReachesEveryParameter(name: String, norm: String) throws {
    let backbone = try makeTestBackbone(name, width: 0.125, norm: norm)
    let last = try backbone.features(testImages(2, 96, 96)).last!.tensor
    try Tape.backward(from: last, seed: Initializer(seed: 5).normal(last.shape, deviation: 1))
    for (name, tensor) in backbone.namedParameters() {
      let gradient = try #require(tensor.gradient, "\(name)")
      #expect(try gradient.values().contains { $0 != 0 }, "\(name)")
      #expect(try gradient.values().allSatisfy { $0.isFinite }, "\(name)")
    }
  }

  @Test func frozenStagesDoNotLearnAndStayInEvaluation() throws {
    let backbone = try makeTestBackbone("resnet_small", width: 0.125) { $0.frozen_stages = 2 }
    backbone.setTraining(true)
    let still = backbone.namedParameters().filter { !$0.tensor.requiresGrad }.map(\.name)
    #expect(still.contains("conv1.weight") && still.contains("layer1.1.bn2.bias"))
    #expect(!still.contains { $0.hasPrefix("layer2") })
    let mean = try #require(backbone.namedBuffers().first { $0.name == "bn1.running_mean" }).tensor
    let moving = backbone.namedBuffers().first { $0.name == "layer2.0.bn1.running_mean" }!.tensor
    _ = try backbone.features(testImages(2, 64, 64))
    #expect(try mean.values().allSatisfy { $0 == 0 })
    #expect(try moving.values().contains { $0 != 0 })
    let published = try makeTestBackbone("vgg16", width: 0.125) { $0.frozen_stages = -1 }
    #expect(
      published.namedParameters().filter { !$0.tensor.requiresGrad }.map(\.name) == [
        "features.0.weight", "features.0.bias", "features.2.weight", "features.2.bias",
        "features.5.weight", "features.5.bias", "features.7.weight", "features.7.bias",
      ])
  }

  @Test func sameSeedSameWeights() throws {
    let (a, b) = (
      try makeTestBackbone("resnet_small", width: 0.25),
      try makeTestBackbone("resnet_small", width: 0.25)
    )
    let c = try makeTestBackbone("resnet_small", width: 0.25, seed: 4)
    for ((first, second), other) in zip(
      zip(a.namedParameters(), b.namedParameters()), c.namedParameters())
    {
      #expect(try first.tensor.values() == second.tensor.values())
      if first.name.hasSuffix("conv1.weight") {
        #expect(try first.tensor.values() != other.tensor.values())
      }
    }
  }

  @Test(arguments: [
    ("resnet9000", { (_: inout BackboneConfiguration) in }, "\"resnet_small\", \"alexnet\""),
    ("vgg16", { $0.width = .nan }, "width"), ("vgg16", { $0.width = 100 }, "width"),
    ("vgg16", { $0.in_channels = 0 }, "in_channels"),
    ("vgg16", { $0.frozen_stages = 6 }, "frozen_stages 6 must be -1 (as published) to 5"),
    ("vgg16", { $0.output_stride = 8 }, "output_stride"),
    ("resnet_small", { $0.output_stride = 5 }, "output_stride 5"),
    ("resnet_small", { $0.norm = "layer" }, "\"frozen_batch\""),
  ])
  func badConfigurationsAreExplained(
    name: String, change: (inout BackboneConfiguration) -> Void, part: String
  ) throws {
    let error = #expect(throws: KDSError.self) { try makeTestBackbone(name, change: change) }
    #expect("\(error!)".contains(part), "\(error!)")
  }

  @Test func imagesThatDoNotFitAreRefused() throws {
    let backbone = try makeTestBackbone("vgg_m", width: 0.1)
    let wrong = try testImages(1, 64, 64, channels: 1)
    let error = #expect(throws: KDSError.self) { try backbone.features(wrong) }
    #expect("\(error!)".contains("vgg_m: images must be float (N, 3, H, W)"))
    #expect(throws: KDSError.self) { try backbone.features(testImages(1, 6, 6)) }
    #expect(backbone.mapSizes(Size2(6)).last == Size2(0))
  }
}
