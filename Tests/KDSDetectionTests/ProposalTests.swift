import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

@testable import KDSDetection

/// Proposals and detections against torchvision.
@Suite struct ProposalTests {
  let fixture: Fixture
  let sizes = [Size2(48, 57), Size2(41, 64)]

  init() throws { fixture = try Fixture("detection") }

  /// torchvision's objectness x as the logits (0, x): the same probability.
  private func output() throws -> RPNOutput {
    let shape = try fixture.shape("proposals/objectness")
    let (count, area) = (shape[1], shape[2] * shape[3])
    let objectness = try fixture.floats("proposals/objectness")
    var logits = [Float](repeating: 0, count: 2 * objectness.count)
    for image in 0..<2 {
      for anchor in 0..<count {
        for cell in 0..<area {
          logits[((image * count + anchor) * 2 + 1) * area + cell] =
            objectness[(image * count + anchor) * area + cell]
        }
      }
    }
    return try RPNOutput(
      [
        RPNMaps(
          logits: tensor(logits, [2, 2 * count, shape[2], shape[3]]),
          deltas: tensor(fixture.floats("proposals/deltas"), [2, 4 * count, shape[2], shape[3]]))
      ], classes: 2)
  }

  private func network() throws -> RegionProposals {
    var configuration = RPNConfiguration()
    configuration.pre_nms_train = 200
    configuration.pre_nms_test = 120
    configuration.post_nms_train = 60
    configuration.post_nms_test = 25
    configuration.min_size = 6
    return RegionProposals(
      anchors: try PyramidAnchors(sizes: [10, 20, 36], ratios: [0.5, 1, 2], strides: [8]),
      configuration: configuration)
  }

  @Test(arguments: [true, false])
  func proposalsEqualTorchvision(training: Bool) throws {
    let found = try network().proposals(
      output(), sizes: sizes, input: Size2(48, 64), training: training)
    for image in 0..<2 {
      let wanted = try fixture.floats("proposals/\(training ? "train" : "test")_\(image)")
      #expect(found[image].count == wanted.count)
      // Coordinates up to 64: the rounding of exp and three operations.
      for (a, b) in zip(found[image], wanted) { #expect(abs(a - b) < 1e-4) }
    }
  }

  /// A constant on both logits changes no probability, so no proposal.
  @Test func onlyTheDifferenceOfTheLogitsCounts() throws {
    let output = try output()
    let before = try network().proposals(
      output, sizes: sizes, input: Size2(48, 64), training: false)
    for index in 0..<output.logits.count { output.logits.floats[index] += 2 }
    let after = try network().proposals(output, sizes: sizes, input: Size2(48, 64), training: false)
    #expect(before.map(\.count) == after.map(\.count))
    // Adding 2 rounds the last bits of a logit, so near ties may change places; boxes stay close by.
    #expect(Array(before[0][..<4]) == Array(after[0][..<4]))
  }

  @Test func proposalsStayInsideTheirImageAndKeepTheMinimum() throws {
    for (image, boxes) in try network()
      .proposals(output(), sizes: sizes, input: Size2(48, 64), training: true).enumerated()
    {
      #expect(!boxes.isEmpty)
      for index in stride(from: 0, to: boxes.count, by: 4) {
        let b = boxes[index..<index + 4].map { $0 }
        #expect(b[0] >= 0 && b[1] >= 0)
        #expect(b[2] <= Float(sizes[image].width) && b[3] <= Float(sizes[image].height))
        #expect(b[2] - b[0] >= 6 && b[3] - b[1] >= 6)
      }
    }
  }

  @Test func numbersThatAreNotFiniteGiveNoProposals() throws {
    let output = try output()
    for index in 0..<output.deltas.count { output.deltas.floats[index] = .nan }
    for boxes in try network().proposals(output, sizes: sizes, input: Size2(48, 64), training: true)
    {
      #expect(boxes.isEmpty)
    }
    let other = try self.output()
    for index in 0..<other.logits.count { other.logits.floats[index] = .nan }
    for boxes in try network().proposals(other, sizes: sizes, input: Size2(48, 64), training: true)
    {
      #expect(boxes.isEmpty)
    }
  }

  // MARK: - Detections

  private func detections(
    _ options: PredictionOptions = PredictionOptions(), scale: (y: Float, x: Float) = (1, 1)
  ) throws -> [[Detection]] {
    var configuration = RoIConfiguration()
    configuration.score_threshold = 0.1
    configuration.nms = 0.4
    configuration.max_detections = 20
    let regions = try (0..<2).map { try fixture.floats("detections/regions_\($0)") }
    var rois: [Float] = []
    for (image, boxes) in regions.enumerated() {
      for row in 0..<boxes.count / 4 {
        rois.append(Float(image))
        rois += boxes[4 * row..<4 * row + 4]
      }
    }
    let rows = rois.count / 5
    let batch = PreparedBatch(
      images: try Tensor.zeros([2, 3, 48, 64]), sizes: sizes, scales: [scale, scale],
      boxes: [[], []], labels: [[], []])
    return try RoIPostprocessing(configuration: configuration, options: options).detections(
      logits: tensor(fixture.floats("detections/logits"), [rows, 4]),
      deltas: tensor(fixture.floats("detections/deltas"), [rows, 16]),
      rois: tensor(rois, [rows, 5]), counts: regions.map { $0.count / 4 }, batch: batch)
  }

  @Test func detectionsEqualTorchvision() throws {
    let found = try detections()
    for image in 0..<2 {
      #expect(
        found[image].map(\.label) == (try fixture.integers("detections/labels_\(image)")))
      let scores = try fixture.floats("detections/scores_\(image)")
      let boxes = try fixture.floats("detections/boxes_\(image)")
      for (index, detection) in found[image].enumerated() {
        #expect(abs(detection.score - scores[index]) < 1e-5)
        for side in 0..<4 {
          // Relative to coordinates up to 64.
          #expect(abs(detection.box[side] - boxes[4 * index + side]) < 64 * 1e-5)
        }
      }
    }
  }

  @Test func boxesComeBackInThePixelsOfTheImage() throws {
    let (plain, scaled) = (try detections(), try detections(scale: (2, 4)))
    for (a, b) in zip(plain.joined(), scaled.joined()) {
      #expect(b.box == a.box / SIMD4(4, 2, 4, 2) && a.score == b.score)
    }
  }

  @Test func optionsOverrideTheConfiguration() throws {
    var options = PredictionOptions()
    options.score_threshold = 0.5
    #expect(try detections(options).joined().allSatisfy { $0.score > 0.5 })
    options.max_detections = 3
    #expect(try detections(options).allSatisfy { $0.count <= 3 })
    options.max_detections = 0
    #expect(try detections(options).allSatisfy { $0.isEmpty })
    options = PredictionOptions()
    options.nms_threshold = 1
    options.max_detections = 1000
    #expect(try detections(options)[0].count > detections()[0].count)
  }
}
