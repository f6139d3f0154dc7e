import KDSKernels
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

@testable import KDSDetection

/// Cascade Mask R-CNN against a reference from its formulas, on the same weights.
@Suite struct CascadeRCNNTests {
  private let fixture: Fixture

  init() throws { fixture = try Fixture("cascade_rcnn") }

  private func narrow(
    masks: Bool = true, _ change: (inout FasterRCNNConfiguration) -> Void = { _ in }
  ) throws -> CascadeRCNN {
    var configuration = narrowConfiguration(masks ? .maskedCascade : .cascaded)
    configuration.mask?.convs = [8, 8]
    configuration.mask?.channels = 8
    change(&configuration)
    let model = try CascadeRCNN(configuration, seed: 1)
    try fillByPattern(model)
    return model
  }

  @Test func lossesAndGradientsAreTheFormulas() throws {
    let model = try narrow()
    let losses = try model.losses(model.prepare(ellipseScene()), seed: 1)
    #expect(losses.count == 2 + 3 * 3)
    for (name, loss) in losses {
      let wanted = try fixture.floats("loss/\(name)")[0]
      // Two libraries add some ten thousand terms in float32; boxes moved by one stage carry the
      // rounding of the stages before.
      #expect(abs(loss.item - wanted) <= 1e-5 * abs(wanted), "\(name): \(loss.item), \(wanted)")
    }
    try Tape.backward(from: Tensor.weightedSum(losses.map { ($0.tensor, 1) }))
    var compared = 0
    for (name, tensor) in model.namedParameters() {
      guard let wanted = try? fixture.floats("gradient/\(name)") else { continue }
      let found = try #require(tensor.gradient, "\(name)").values()
      let scale = wanted.reduce(0) { max($0, abs($1)) }
      let worst = zip(found, wanted).reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(found.count == wanted.count && worst <= 1e-4 * scale, "\(name): \(worst / scale)")
      compared += 1
    }
    // 32 of backbone, pyramid and proposals, 16 of every stage.
    #expect(compared == 32 + 3 * 16)
  }

  @Test func detectionsAreTheFormulas() throws {
    let model = try narrow()
    model.setTraining(false)
    let found = try model.detect(model.prepare(ellipseScene()), PredictionOptions())
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
      let own = list.flatMap(\.mask)
      #expect(own.count == 4 * probabilities.count)
      for (index, wanted) in probabilities.enumerated() {
        #expect(abs(own[4 * index] - wanted) < 1e-4)
      }
    }
  }

  @Test func withoutMasksTheRestIsTheSame() throws {
    let (with, without) = (try narrow(), try narrow(masks: false))
    #expect(with.hasMasks && !without.hasMasks)
    #expect(!without.namedParameters().contains { $0.name.contains("mask") })
    let names = try without.losses(without.prepare(ellipseScene(masks: false)), seed: 1).map(\.name)
    #expect(names.suffix(2) == ["loss_classifier_2", "loss_box_reg_2"] && names.count == 8)
    without.setTraining(false)
    let found = try without.detect(without.prepare(ellipseScene()), PredictionOptions())
    #expect(found.allSatisfy { $0.allSatisfy { $0.mask.isEmpty } })
  }

  @Test func oneStageMovesNothingTwice() throws {
    let model = try narrow(masks: false) {
      $0.cascade?.ious = [0.5]
      $0.cascade?.box_stds = [[0.1, 0.1, 0.2, 0.2]]
      $0.cascade?.loss_weights = [2]
    }
    let losses = try model.losses(model.prepare(ellipseScene()), seed: 1)
    #expect(losses.map(\.name).last == "loss_box_reg_0")
  }

  @Test(arguments: 0..<6)
  func badStagesAreNamed(which: Int) throws {
    let error = #expect(throws: KDSError.self) {
      try narrow(masks: false) {
        switch which {
        case 0: $0.cascade?.ious = [0.5]
        case 1: $0.cascade?.ious = [0.5, 0, 0.7]
        case 2: $0.cascade?.loss_weights = [1, -1, 1]
        case 3: $0.cascade?.box_stds[1] = [1, 1]
        case 4: $0.cascade = nil
        default: $0.detector = "faster_rcnn"
        }
      }
    }
    let text = "\(error!)"
    #expect(text.contains("cascade") || text.contains("box_std"), "\(text)")
  }

  @Test func noProposalsIsNoDetections() throws {
    let model = try narrow { $0.rpn.min_size = 1000 }
    model.setTraining(false)
    let batch = try model.prepare(ellipseScene())
    #expect(try model.detect(batch, .init()).allSatisfy { $0.isEmpty })
    model.setTraining(true)
    #expect(try model.losses(batch, seed: 1).allSatisfy { $0.tensor.item.isFinite })
  }
}
