import KDSDetection
import KDSNN
import KDSTensor
import Testing

@Suite struct ResNetTests {
  /// torchvision's published counts without the classifier (2048 or 512 · 1000 + 1000).
  @Test(arguments: [
    ("resnet18", 11_689_512 - 513_000), ("resnet34", 21_797_672 - 513_000),
    ("resnet50", 25_557_032 - 2_049_000), ("resnet101", 44_549_160 - 2_049_000),
    ("resnext50_32x4d", 25_028_904 - 2_049_000),
  ])
  func parameterCountsOfPublishedNetworks(name: String, count: Int) throws {
    #expect(try parameterCount(makeTestBackbone(name)) == count)
  }

  /// The large ones by the number of blocks: every block of a layer but its first is alike.
  @Test(arguments: [
    ("resnet152", [3, 8, 36, 3]), ("resnext101_32x4d", [3, 4, 23, 3]),
    ("resnext101_64x4d", [3, 4, 23, 3]),
  ])
  func depthsOfTheLargeNetworks(name: String, depths: [Int]) throws {
    let backbone = try makeTestBackbone(name, width: 0.05)
    let found = (1...4).map { backbone.module(at: "layer\($0)")?.children.count }
    #expect(found == depths)
  }

  @Test(arguments: ["resnet18", "resnet50", "resnext101_64x4d"], [(64, 96), (77, 33), (1, 1)])
  func mapsHaveTheSizesThatAreSaid(name: String, size: (Int, Int)) throws {
    let backbone = try makeTestBackbone(name, width: 0.06)
    backbone.setTraining(false)
    let features = try Tape.withoutGrad { try backbone.features(testImages(1, size.0, size.1)) }
    let sizes = backbone.mapSizes(Size2(size.0, size.1))
    #expect(features.map(\.name) == ["layer1", "layer2", "layer3", "layer4"])
    #expect(features.map(\.stride) == [4, 8, 16, 32])
    for ((feature, description), size) in zip(zip(features, backbone.descriptions), sizes) {
      #expect(feature.tensor.shape == [1, description.channels, size.height, size.width])
      #expect(feature.tensor.layout == .preferred)
    }
  }

  @Test func narrowResNeXtKeepsItsGroups() throws {
    for width in [0.05, 0.25, 0.6, 1] {
      let backbone = try makeTestBackbone("resnext50_32x4d", width: width)
      for layer in 1...4 {
        let module = backbone.module(at: "layer\(layer).0.conv2")
        let conv = try #require(module as? Conv2d)
        #expect(conv.options.groups == 32)
        #expect(conv.weight.shape[0] % 32 == 0)
      }
    }
  }

  @Test(arguments: ["batch", "frozen_batch", "group", "none"], [[], [2, 3, 4]])
  func gradientReachesEveryParameter(norm: String, dcn: [Int]) throws {
    for name in ["resnet18", "resnext50_32x4d"] {
      let backbone = try makeTestBackbone(name, width: 0.06, norm: norm) { $0.dcn_stages = dcn }
      let last = try backbone.features(testImages(2, 96, 96)).last!.tensor
      try Tape.backward(from: last, seed: Initializer(seed: 5).normal(last.shape, deviation: 1))
      for (name, tensor) in backbone.namedParameters() {
        let gradient = try #require(tensor.gradient, "\(name)")
        #expect(try gradient.values().contains { $0 != 0 }, "\(name)")
        #expect(try gradient.values().allSatisfy { $0.isFinite }, "\(name)")
      }
    }
  }

  @Test(arguments: [("resnet18", 2), ("resnet50", 3)])
  func deformableStages(name: String, perBlock: Int) throws {
    let backbone = try makeTestBackbone(name, width: 0.125) { $0.dcn_stages = [2, 4] }
    for layer in 1...4 {
      for block in backbone.module(at: "layer\(layer)")!.children {
        let conv = block.module.childModule("conv2")
        #expect((conv is DeformConv2d) == [2, 4].contains(layer))
        guard let conv = conv as? DeformConv2d else { continue }
        let names = conv.namedParameters().map(\.name)
        #expect(names == ["weight", "conv_offset.weight", "conv_offset.bias"])
        let offsets = conv.namedParameters()[1].tensor
        #expect(offsets.shape == [27, conv.weight.shape[1], 3, 3])
        #expect(try offsets.values().allSatisfy { $0 == 0 })
      }
    }
  }

  /// With zero offsets the mask is 1/2 everywhere; batch normalization takes the factor back.
  @Test func deformableNetworkStartsAsThePlainOne() throws {
    func last(_ stages: [Int]) throws -> [Float] {
      let backbone = try makeTestBackbone("resnet18", width: 0.125) { $0.dcn_stages = stages }
      return try backbone.features(testImages(2, 64, 64)).last!.tensor.values()
    }
    let (plain, deformable) = (try last([]), try last([3]))
    let scale = plain.map(abs).max() ?? 0
    // ε of 1e-5 beside a quarter of the variance moves the values a little.
    #expect(zip(plain, deformable).allSatisfy { abs($0 - $1) <= 1e-3 * scale })
    #expect(plain != deformable)
  }

  @Test func epsilonReachesEveryNormalization() throws {
    let backbone = try makeTestBackbone("resnet50", width: 0.05) { $0.norm_epsilon = 0 }
    let norms = backbone.namedModules().compactMap { $0.module as? BatchNorm2d }
    #expect(norms.count == 53)
    #expect(norms.allSatisfy { $0.epsilon == 0 })
  }

  @Test func publishedFrozenStagesAreStemAndLayer1() throws {
    let backbone = try makeTestBackbone("resnet50", width: 0.05) { $0.frozen_stages = -1 }
    for (name, tensor) in backbone.namedParameters() {
      let still = ["conv1.", "bn1.", "layer1."].contains { name.hasPrefix($0) }
      #expect(tensor.requiresGrad == !still, "\(name)")
    }
  }

  /// He's initialization by the outputs: variance 2 / (k² · K), whatever the groups.
  @Test func initialWeightsAreHesByOutputs() throws {
    let backbone = try makeTestBackbone("resnext50_32x4d")
    let parameters = Dictionary(uniqueKeysWithValues: backbone.namedParameters())
    for (name, fan) in [
      ("conv1.weight", 49 * 64), ("layer2.0.conv2.weight", 9 * 256),
      ("layer3.0.downsample.0.weight", 1024),
    ] {
      let values = try parameters[name]!.values().map(Double.init)
      let variance = values.reduce(0) { $0 + $1 * $1 } / Double(values.count)
      // 9216 values or more: six standard deviations of their variance are 0.09 of it.
      #expect(abs(variance * Double(fan) / 2 - 1) < 0.09, "\(name): \(variance)")
    }
  }

  @Test(arguments: [
    ("resnet50", { (c: inout BackboneConfiguration) in c.dcn_stages = [5] }, "dcn_stages [5]"),
    ("resnet50", { $0.dcn_stages = [2, 2] }, "dcn_stages [2, 2]"),
    ("vgg16", { $0.dcn_stages = [2] }, "dcn_stages are for resnet18"),
    ("resnet50", { $0.output_stride = 8 }, "output_stride 8 is not 32 or 16"),
    ("resnet18", { $0.output_stride = 16 }, "output_stride 16 is not 32"),
    ("resnet50", { ($0.output_stride, $0.dcn_stages) = (16, [4]) }, "dcn_stages with 4"),
    ("resnet50", { $0.norm_epsilon = -1 }, "norm_epsilon"),
    ("resnet50", { $0.norm_epsilon = .nan }, "norm_epsilon"),
    ("resnet50", { $0.frozen_stages = 6 }, "to 5"),
    ("resnext50", { _ in }, "\"resnext50_32x4d\""),
  ])
  func badConfigurationsAreExplained(
    name: String, change: (inout BackboneConfiguration) -> Void, part: String
  ) throws {
    let error = #expect(throws: KDSError.self) { try makeTestBackbone(name, change: change) }
    #expect("\(error!)".contains(part), "\(error!)")
  }
}
