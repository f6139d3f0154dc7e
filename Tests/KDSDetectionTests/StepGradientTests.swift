import KDSKernels
import KDSNN
import KDSTensor
import Testing

@testable import KDSDetection

/// The gradient of a whole training step against finite differences.
///
/// Anchors, regions and dropped units are drawn once: moving a weight must not move them, for no
/// gradient passes through the choice.
@Suite struct StepGradientTests {
  private let model: FasterRCNN
  private let batch: PreparedBatch
  private let pass: FasterRCNNTrainingPass
  private let seed: UInt64 = 3

  init() throws {
    model = try tinyDetector {
      $0.roi.dropout = 0.25
      $0.rpn.smooth_l1_beta = 1
    }
    batch = try model.prepare(tinyBatch())
    pass = try model.training(batch, seed: seed)
  }

  /// The sum of the four losses for the drawn rows.
  private func loss() throws -> Double {
    let levels = try model.source.maps(batch.images).levels.map(\.tensor)
    let output = try model.rpnHead(levels)
    let (logits, deltas) = try model.roiHead(levels, pass.rois, dropoutSeed: seed)
    let (rpn, rcn) = (pass.rpn, pass.rcn)
    let samples = [
      HeadSample(
        logits: try output.logits.gatherRows(rpn.rows), labels: rpn.labels,
        deltas: try output.deltas.gatherRows(rpn.positiveRows), targets: rpn.targets,
        rows: rpn.rows, positiveRows: rpn.positiveRows, positiveClasses: rpn.positiveClasses),
      HeadSample(
        logits: logits, labels: rcn.labels,
        deltas: try deltas.gatherRows(rcn.positiveRows).gatherColumnGroups(rcn.positiveClasses),
        targets: rcn.targets, rows: rcn.rows, positiveRows: rcn.positiveRows,
        positiveClasses: rcn.positiveClasses),
    ]
    return try samples.reduce(0.0) {
      let pair = (try $1.classificationLoss(), try $1.regressionLoss(beta: 1))
      return $0 + Double(pair.0.item) + Double(pair.1.item)
    }
  }

  /// Slope of the loss when `tensor` moves along `direction`.
  private func slope(_ tensor: Tensor, _ direction: [Float], step: Float) throws -> Double {
    let start = try tensor.values()
    func at(_ distance: Float) throws -> Double {
      for index in start.indices {
        tensor.floats[index] = start[index] + distance * direction[index]
      }
      tensor.markChanged()
      return try Tape.withoutGrad { try loss() }
    }
    let (above, below) = (try at(step), try at(-step))
    tensor.floats.update(from: start, count: start.count)
    tensor.markChanged()
    return (above - below) / (2 * Double(step))
  }

  @Test func everyParameterAgreesWithFiniteDifferences() throws {
    let losses = pass.losses
    let total = losses.reduce(0.0) { $0 + Double($1.tensor.item) }
    #expect(try loss() == total)
    try Tape.backward(from: Tensor.weightedSum(losses.map { ($0.tensor, 1) }))
    var random = CounterRandom(seed: 5)
    for (name, tensor) in model.namedParameters() {
      let gradient = try #require(tensor.gradient, "\(name)").values()
      let norm = gradient.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
      try #require(norm > 1e-4, "\(name)")
      // Along the gradient, along the steepest element, and along a chance direction.
      let steepest = gradient.indices.max { abs(gradient[$0]) < abs(gradient[$1]) }!
      let chance = gradient.indices.map { _ in random.normal() }
      let length = chance.reduce(0) { $0 + $1 * $1 }.squareRoot()
      let directions = [
        gradient.map { $0 / Float(norm) },
        gradient.indices.map { $0 == steepest ? 1 : 0 },
        chance.map { $0 / length },
      ]
      for direction in directions {
        let wanted = zip(gradient, direction).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        let found = try slope(tensor, direction, step: 1e-3)
        // Rounding of the loss gives 1e-4; ReLUs that switch within the step give the rest.
        #expect(abs(found - wanted) < 0.03 * norm + 3e-3, "\(name): \(found), gradient \(wanted)")
      }
    }
  }
}
