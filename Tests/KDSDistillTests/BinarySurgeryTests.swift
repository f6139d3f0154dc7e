import KDSDetection
import KDSDistill
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

@Suite struct BinarySurgeryTests {
  private func layer(_ order: String = "paper", k: Bool = false, rule: String = "paper") throws
    -> BinaryConv2d
  {
    let conv = Conv2d(
      weight: try pattern([20, 70, 3, 3], key: 1), bias: try pattern([20], key: 2),
      options: ConvolutionOptions(padding: Padding(1)))
    var settings = BinarySettings()
    (settings.order, settings.scaling_factor_k, settings.rule) = (order, k, rule)
    return try BinaryConv2d(conv, settings)
  }

  @Test(arguments: ["paper", "plain"], [false, true])
  func bothWaysGiveTheSame(_ order: String, _ k: Bool) throws {
    let layer = try layer(order, k: k)
    let images = try pattern([2, 70, 9, 7], key: 3, scale: 3, offset: 0.4)
    _ = try layer(images)  // in training: the statistics move
    layer.setTraining(false)
    let floating = try layer(images)
    let counted = try Tape.withoutGrad { try layer(images) }
    #expect(floating.isTracked && !counted.isTracked)
    for (a, b) in zip(try counted.values(), try floating.values()) {
      // Sums of 630 numbers in another order, and Winograd's rounding.
      #expect(abs(a - b) <= 1e-4 * max(1, abs(b)))
    }
    // The batch's own statistics, without a tape.
    layer.setTraining(true)
    let training = try Tape.withoutGrad { try layer(images) }
    #expect(try training.shape == layer(images).shape)
  }

  @Test func normalizationBehindIsFolded() throws {
    let owner = Module()
    owner.child("conv", try layer())
    let norm = try BatchNorm2d(channels: 20, activation: .relu)
    for (key, vector) in [norm.weight, norm.bias, norm.runningMean].enumerated() {
      let values = try pattern([20], key: UInt64(10 + key), scale: 2)
      vector.floats.update(from: values.floats, count: 20)
      vector.markChanged()
    }
    owner.child("bn", norm)
    owner.setTraining(false)
    let images = try pattern([1, 70, 6, 5], key: 4)
    let pair = ConvNorm("conv", "bn")
    let folded = try Tape.withoutGrad { try pair(images, in: owner) }
    let apart = try Tape.withoutGrad { try norm(owner.layer("conv")(images)) }
    for (a, b) in zip(try folded.values(), try apart.values()) {
      #expect(abs(a - b) <= 1e-5 * max(1, abs(b)))
    }
    #expect(try pair(images, in: owner).isTracked)
  }

  @Test func authorsPreparationRunsInTrainingAlone() throws {
    let layer = try layer(rule: "official")
    let before = try layer.weight.values()
    layer.setTraining(false)
    let images = try pattern([1, 70, 4, 4], key: 5)
    _ = try layer(images)
    #expect(try layer.weight.values() == before)
    layer.setTraining(true)
    _ = try layer(images)
    let mean = (0..<70).reduce(Float(0)) { $0 + layer.weight.floats[$1 * 9] } / 70
    #expect(abs(mean) < 1e-6)
    #expect(try layer.weight.values() != before)
  }

  @Test func recordsOfOldFilesStillRead() throws {
    let old = try surgeryRecord(#"{"layers": []}"#)
    #expect(old == SurgeryRecord())
    var record = SurgeryRecord(binary: [BinaryLayer(layer: "backbone.layer1.0.conv1")])
    record.quantizers = [RecordedQuantizer(layer: "backbone.layer3", step: 0.5, form: "uniform")]
    #expect(try surgeryRecord(StrictJSON.encode(record)) == record)
    #expect(throws: KDSError.self) { try surgeryRecord(#"{"binery": []}"#) }
  }

  @Test func badRecordsAreRefused() throws {
    var configuration = FasterRCNNConfiguration()
    configuration.backbone.width = 0.25
    let model = try FasterRCNN(configuration, seed: 1)
    var wrong = BinarySettings()
    wrong.rule = "theirs"
    for record in [
      SurgeryRecord(binary: [BinaryLayer(layer: "backbone.bn1")]),
      SurgeryRecord(binary: [BinaryLayer(layer: "backbone.conv1", settings: wrong)]),
      SurgeryRecord(quantizers: [RecordedQuantizer(layer: "layer3", step: 1, form: "uniform")]),
      SurgeryRecord(
        quantizers: [RecordedQuantizer(layer: "backbone.layer3", step: 0, form: "uniform")]),
      SurgeryRecord(quantizers: [RecordedQuantizer(layer: "backbone.layer3", step: 1, form: "log")]
      ),
    ] {
      #expect(throws: KDSError.self) { try applyStructure(record, to: model) }
    }
  }

  /// 62.27 for 256 channels and 3×3: the paper's section 4.1.
  @Test func speedupFormula() {
    #expect(abs(binarySpeedup(channels: 256, kernelArea: 9) - 62.27) < 0.005)
    #expect(binarySpeedup(channels: 1, kernelArea: 1) < 1)
  }
}
