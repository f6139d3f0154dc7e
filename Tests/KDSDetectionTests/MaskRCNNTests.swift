import KDSKernels
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

@testable import KDSDetection

/// Mask R-CNN against torchvision's on the same weights.
@Suite struct MaskRCNNTests {
  private let fixture: Fixture

  init() throws { fixture = try Fixture("mask_rcnn") }

  private func narrow(
    _ change: (inout FasterRCNNConfiguration) -> Void = { _ in }
  ) throws -> FasterRCNN {
    var configuration = narrowConfiguration(.masked)
    configuration.mask?.convs = [8, 8]
    configuration.mask?.channels = 8
    change(&configuration)
    let model = try FasterRCNN(configuration, seed: 1)
    try fillByPattern(model)
    return model
  }

  @Test func namesFollowTorchvision() throws {
    let names = Set(try narrow().namedParameters().map(\.name))
    for name in [
      "roi_heads.mask_head.0.0.weight", "roi_heads.mask_head.1.0.bias",
      "roi_heads.mask_predictor.conv5_mask.weight", "roi_heads.mask_predictor.conv5_mask.bias",
      "roi_heads.mask_predictor.mask_fcn_logits.weight", "roi_heads.box_head.fc7.weight",
    ] {
      #expect(names.contains(name), "\(name)")
    }
    let normed = try narrow { $0.mask?.norm = "batch" }
    #expect(normed.namedParameters().contains { $0.name == "roi_heads.mask_head.1.1.weight" })
  }

  @Test func parametersOfThePublishedBranch() throws {
    var configuration = FasterRCNNConfiguration.masked
    (configuration.num_classes, configuration.anchor_sizes) = (91, [16, 32, 64, 128])
    (configuration.backbone.width, configuration.backbone.output_stride) = (0.125, 16)
    configuration.roi.hidden = [8]
    let branch = try FasterRCNN(configuration, seed: 1).namedParameters().filter {
      $0.name.contains("mask_")
    }
    // 4 · (256 · 256 · 9 + 256) + (256 · 256 · 4 + 256) + (256 · 91 + 91)
    #expect(branch.reduce(0) { $0 + $1.tensor.count } == 2_646_107)
  }

  @Test func theMasksAreTheGenerators() throws {
    for (image, raw) in try ellipseScene().images.enumerated() {
      #expect(try packed(raw.masks!.bytes) == fixture.integers("target/masks_\(image)"))
    }
  }

  @Test func lossesAndGradientsAreTorchvisions() throws {
    let model = try narrow()
    let losses = try model.losses(model.prepare(ellipseScene()), seed: 1)
    #expect(losses.map(\.name).last == "loss_mask" && losses.count == 5)
    for (name, loss) in losses {
      let wanted = try fixture.floats("loss/\(name)")[0]
      // Two libraries add some ten thousand terms in float32.
      #expect(abs(loss.item - wanted) <= 1e-5 * abs(wanted), "\(name): \(loss.item), \(wanted)")
    }
    try Tape.backward(from: Tensor.weightedSum(losses.map { ($0.tensor, 1) }))
    var compared = 0
    for (name, tensor) in model.namedParameters() {
      guard let wanted = try? fixture.floats("gradient/\(name)") else { continue }
      try expectClose(try #require(tensor.gradient).values(), wanted, name)
      compared += 1
    }
    #expect(compared == 48)
  }

  /// Largest difference, relative to the largest gradient of the tensor.
  private func expectClose(_ found: [Float], _ wanted: [Float], _ name: String) throws {
    let scale = wanted.reduce(0) { max($0, abs($1)) }
    let worst = zip(found, wanted).reduce(0) { max($0, abs($1.0 - $1.1)) }
    #expect(found.count == wanted.count && worst <= 1e-4 * scale, "\(name): \(worst / scale)")
  }

  @Test func detectionsAreTorchvisions() throws {
    let model = try narrow()
    model.setTraining(false)
    let raw = try ellipseScene()
    let found = try model.detect(model.prepare(raw), PredictionOptions())
    for (image, list) in found.enumerated() {
      let boxes = try fixture.floats("found/boxes_\(image)")
      let scores = try fixture.floats("found/scores_\(image)")
      #expect(try list.map(\.label) == fixture.integers("found/labels_\(image)"))
      #expect(list.count == scores.count && !list.isEmpty)
      for (index, detection) in list.enumerated() {
        #expect(abs(detection.score - scores[index]) < 1e-4)
        for side in 0..<4 { #expect(abs(detection.box[side] - boxes[4 * index + side]) < 1e-3) }
      }
      let probabilities = try fixture.floats("found/probabilities_\(image)")
      for (a, b) in zip(list.flatMap(\.mask), probabilities) { #expect(abs(a - b) < 1e-4) }
      #expect(list.flatMap(\.mask).count == probabilities.count)
      try expectMasks(list, raw.images[image], "found/masks_\(image)")
    }
  }

  private func expectMasks(_ list: [Detection], _ image: RawImage, _ name: String) throws {
    let area = image.height * image.width
    var bytes = [UInt8](repeating: 7, count: list.count * area)
    bytes.withUnsafeMutableBufferPointer {
      for (index, detection) in list.enumerated() {
        detection.pasteMask(
          into: $0.baseAddress! + index * area, height: image.height, width: image.width)
      }
    }
    let pairs = zip(packed(bytes), try fixture.integers(name))
    let wrong = pairs.reduce(0) { $0 + ($1.0 ^ $1.1).nonzeroBitCount }
    // A pixel whose probability is one half within rounding may fall either way.
    #expect(wrong <= 2 && bytes.contains(1), "\(wrong) pixels")
  }

  // MARK: - What can go wrong

  @Test func masksAreNeededToLearn() throws {
    let model = try narrow()
    let error = #expect(throws: KDSError.self) {
      try model.losses(model.prepare(ellipseScene(masks: false)), seed: 1)
    }
    #expect("\(error!)".contains("targets[0]") && "\(error!)".contains("masks"))
    let raw = try ellipseScene(masks: false)
    #expect(throws: KDSError.self) { try raw.setMasks([1, 0], image: 0) }
    #expect(throws: KDSError.self) { try raw.setMasks([], image: 2) }
  }

  @Test func noObjectsIsNoMaskLoss() throws {
    let image = RawImage(
      pixels: .floats([Float](repeating: 0.5, count: 3 * 40 * 40)), channels: 3, height: 40,
      width: 40)
    let model = try narrow()
    let batch = try model.prepare(RawBatch(images: [image], hasTargets: true))
    let losses = try model.losses(batch, seed: 1)
    #expect(losses.last?.tensor.item == 0)
    try Tape.backward(from: Tensor.weightedSum(losses.map { ($0.tensor, 1) }))
  }

  @Test func theBranchAndTheNameBelongTogether() throws {
    #expect(throws: KDSError.self) { try narrow { $0.mask = nil } }
    #expect(throws: KDSError.self) { try narrow { $0.detector = "faster_rcnn" } }
    #expect(throws: KDSError.self) { try narrow { $0.mask?.convs = [0] } }
    #expect(throws: KDSError.self) { try narrow { $0.mask?.pool_size = 0 } }
    let text = try narrow().configurationText()
    let read = try StrictJSON.decode(text, defaults: FasterRCNNConfiguration.masked, what: "test")
    #expect(try FasterRCNN(read, seed: 2).configurationText() == text)
  }

  @Test func aWildDetectionPastesNothing() {
    for box in [SIMD4<Float>(.nan, 0, 4, 4), SIMD4(0, 0, .infinity, 4), SIMD4(90, 90, 99, 99)] {
      var bytes = [UInt8](repeating: 7, count: 64)
      Detection(box: box, score: 1, label: 1, mask: [1, 1, 1, 1])
        .pasteMask(into: &bytes, height: 8, width: 8)
      #expect(bytes.allSatisfy { $0 == 0 })
    }
  }
}
