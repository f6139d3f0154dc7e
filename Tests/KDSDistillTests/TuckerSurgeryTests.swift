import KDSDetection
import KDSDistill
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

@Suite struct TuckerSurgeryTests {
  private func backbone(_ name: String = "vgg16", width: Double = 0.125) throws -> Backbone {
    var configuration = BackboneConfiguration()
    configuration.name = name
    configuration.width = width
    return try makeBackbone(configuration, Initializer(seed: 7))
  }

  private func costs(_ backbone: Backbone) throws -> [LayerCost] {
    let images = try pattern([1, 3, 64, 80], key: 1)
    return try FLOPCounter.count(backbone) { _ = try backbone.features(images) }
  }

  private func last(_ backbone: Backbone) throws -> [Float] {
    backbone.setTraining(false)
    let images = try pattern([1, 3, 64, 80], key: 1)
    return try Tape.withoutGrad { try backbone.features(images).last!.tensor.values() }
  }

  /// Gives every 3×3 kernel the Tucker ranks (4, 4) and a little noise, as if it had been trained.
  private func makeLowRank(_ backbone: Backbone) throws {
    for (index, (_, module)) in backbone.namedModules().enumerated() {
      guard let conv = module as? Conv2d, conv.weight.shape[1] > 4 else { continue }
      let (outputs, inputs) = (conv.weight.shape[0], conv.weight.shape[1])
      let kernel = TuckerKernel(conv.weight, group: 0, groups: 1, inputs: inputs, area: 9)
      let factors = try TuckerFactors(kernel, TuckerRanks(input: 4, output: 4))
      let low = factors.reconstructed(inputs: inputs, area: 9)
      let noise = try pattern([outputs, inputs, 9], key: UInt64(index), scale: 1e-5)
      for element in 0..<conv.weight.count {
        conv.weight.floats[element] = Float(low.values[element]) + noise.floats[element]
      }
      conv.weight.markChanged()
    }
  }

  @Test func flopsAreCounted() throws {
    let backbone = try backbone()
    let costs = try costs(backbone)
    #expect(costs.count == 13)
    #expect(costs[0].name == "features.0")
    #expect(costs[0].flops == 2 * 64 * 80 * 8 * 27)
    #expect(costs[12].name == "features.28")
    #expect(costs[12].flops == 2 * 4 * 5 * 64 * 64 * 9)
    let folded = try self.backbone("resnet_small", width: 0.25)
    let training = try self.costs(folded)
    folded.setTraining(false)
    #expect(try self.costs(folded).map(\.flops) == training.map(\.flops))
  }

  @Test func vbmfFindsTheRanksAndKeepsTheOutput() throws {
    let backbone = try backbone()
    try makeLowRank(backbone)
    let before = try last(backbone)
    let report = try tucker(backbone, costs: costs(backbone))
    let wide = report.layers.filter { $0.inputs >= 16 }
    #expect(!wide.isEmpty)
    for layer in wide {
      #expect(layer.ranks == TuckerRanks(input: 4, output: 4), "\(layer.layer)")
      #expect(layer.relativeError < 1e-3, "\(layer.layer)")
      #expect(layer.weightsAfter < layer.weightsBefore)
    }
    // The first convolution gets Tucker-1 or, as here, stays: its factors would not be smaller.
    #expect(report.kept.contains("features.0") || report.layers[0].ranks.input == nil)
    let after = try last(backbone)
    let energy = before.reduce(0) { $0 + $1 * $1 }
    let lost = zip(before, after).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    // Most is lost in the first layers, whose few channels have no rank to find. Wrong factors would
    // lose twice the energy.
    #expect(lost < 0.5 * energy)
    #expect(report.weightsAfter < report.weightsBefore / 2)
    let counted = try costs(backbone).reduce(0) { $0 + $1.flops }
    #expect(abs(counted / report.flopsAfter! - 1) < 1e-9)
    #expect(report.weightsAfter == backbone.namedParameters().reduce(0) { $0 + $1.tensor.count })
  }

  @Test(arguments: [0.3, 0.375, 0.6])
  func flopsTargetIsMet(fraction: Double) throws {
    let backbone = try backbone("alexnet", width: 0.25)
    let costs = try costs(backbone)
    let report = try tucker(backbone, TuckerOptions(ranks: .flops(fraction)), costs: costs)
    let share = try self.costs(backbone).reduce(0) { $0 + $1.flops } / report.flopsBefore!
    // Ranks are whole numbers, so the target is met from below with some slack.
    #expect(share <= fraction && share > 0.85 * fraction, "\(share)")
    #expect(abs(share * report.flopsBefore! / report.flopsAfter! - 1) < 1e-9)
  }

  @Test func flopsTargetsThatCannotBeAreRefused() throws {
    let backbone = try backbone()
    let costs = try costs(backbone)
    for (fraction, costs) in [(0.0, costs), (1.0, costs), (1e-4, costs), (0.5, [])] {
      #expect(throws: KDSError.self) {
        try tucker(backbone, TuckerOptions(ranks: .flops(fraction)), costs: costs)
      }
    }
  }

  @Test func recordRebuildsTheModel() throws {
    let original = try backbone("resnet_small", width: 0.25)
    let ranks = [
      "conv1": TuckerRanks(input: nil, output: 5),
      "layer1.0.conv2": TuckerRanks(input: 6, output: 7),
      "layer2.0.downsample.0": TuckerRanks(input: nil, output: 9),
    ]
    let report = try tucker(original, TuckerOptions(ranks: .explicit(ranks)))
    #expect(report.record.layers.map(\.layer) == ranks.keys.sorted())
    let text = try StrictJSON.encode(report.record)
    let record = try StrictJSON.decode(SurgeryRecord.self, text, what: "surgery")
    #expect(record == report.record)

    let rebuilt = try backbone("resnet_small", width: 0.25)
    try applyStructure(record, to: rebuilt)
    let tensors = original.namedParameters() + original.namedBuffers()
    let targets = rebuilt.namedParameters() + rebuilt.namedBuffers()
    #expect(tensors.map(\.name) == targets.map(\.name))
    for (from, to) in zip(tensors, targets) {
      #expect(from.tensor.shape == to.tensor.shape)
      to.tensor.floats.update(from: from.tensor.floats, count: from.tensor.count)
      to.tensor.markChanged()
    }
    #expect(try last(rebuilt) == last(original))
  }

  @Test func factorizedLayersAreNotFactorizedAgain() throws {
    let backbone = try backbone("resnet_small", width: 0.25)
    let options = TuckerOptions(
      ranks: .explicit(["layer2.0.conv1": TuckerRanks(input: 4, output: 4)]))
    _ = try tucker(backbone, options)
    let again = try tucker(backbone, TuckerOptions(layers: ["layer2"]))
    #expect(!(again.layers.map(\.layer) + again.kept).contains { $0.contains("layer2.0.conv1") })
    #expect((again.layers.map(\.layer) + again.kept).allSatisfy { $0.hasPrefix("layer2.") })
  }

  @Test func mistakesAreExplained() throws {
    let backbone = try backbone("resnet_small", width: 0.25)
    func message(_ body: () throws -> Void) -> String {
      do { try body() } catch { return "\(error)" }
      return "no error"
    }
    let one = TuckerRanks(input: 1, output: 1)
    #expect(
      message { _ = try tucker(backbone, TuckerOptions(ranks: .explicit(["nothing": one]))) }
        .contains("\"nothing\""))
    #expect(
      message { _ = try tucker(backbone, TuckerOptions(layers: ["layer9"])) }.contains("\"layer9\"")
    )
    let big = TuckerRanks(input: 99, output: 1)
    #expect(
      message { _ = try tucker(backbone, TuckerOptions(ranks: .explicit(["layer1.0.conv2": big]))) }
        .contains("ranks (99, 1) of \"layer1.0.conv2\" do not fit its 16 input"))
    #expect(
      message { _ = try tucker(backbone, TuckerOptions(maps: ["conv1": Size2(3)])) }
        .contains("reads no flattened map"))
    for bad in [
      FactorizedLayer(layer: "bn1", ranks: one), FactorizedLayer(layer: "gone", ranks: one),
      FactorizedLayer(layer: "conv1", ranks: TuckerRanks(input: 0, output: 1)),
      FactorizedLayer(layer: "conv1", ranks: one, map: [3]),
      FactorizedLayer(layer: "conv1", ranks: one, map: [3, 3]),
    ] {
      #expect(throws: KDSError.self) {
        try applyStructure(SurgeryRecord(layers: [bad]), to: backbone)
      }
    }
  }
}
