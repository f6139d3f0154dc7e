import KDSTensor
import KDSTestSupport
import Testing

@testable import KDSDetection

/// The four losses against torchvision, which has β = 1/9 in both heads and one objectness logit.
@Suite struct HeadLossTests {
  let fixture: Fixture

  init() throws { fixture = try Fixture("detection") }

  private func compare(_ found: [Float], _ name: String) throws {
    let wanted = try fixture.floats(name)
    #expect(found.count == wanted.count)
    // Means of 24 to 40 terms of order 1.
    for (a, b) in zip(found, wanted) { #expect(abs(a - b) < 1e-6, "\(name)") }
  }

  @Test func regionLosses() throws {
    let logits = try tensor(fixture.floats("region_loss/logits"), [24, 4])
    let deltas = try tensor(fixture.floats("region_loss/deltas"), [24, 16])
    let labels = try fixture.integers("region_loss/labels")
    let targets = try fixture.floats("region_loss/targets")
    logits.requiresGrad = true
    deltas.requiresGrad = true
    let positives = labels.indices.filter { labels[$0] > 0 }
    let classes = positives.map { Int(labels[$0]) }
    let sample = HeadSample(
      logits: logits, labels: try integers(labels, [24]),
      deltas: try deltas.gatherRows(positives).gatherColumnGroups(classes),
      targets: try tensor(
        positives.flatMap { targets[4 * $0..<4 * $0 + 4] }, [positives.count, 4]),
      rows: Array(0..<24), positiveRows: positives, positiveClasses: classes)
    let pair = [try sample.classificationLoss(), try sample.regressionLoss(beta: 1.0 / 9)]
    try compare(pair.map(\.item), "region_loss/values")
    try Tape.backward(from: Tensor.weightedSum(pair.map { ($0, 1) }))
    try compare(logits.gradient!.values(), "region_loss/grad_logits")
    try compare(deltas.gradient!.values(), "region_loss/grad_deltas")
  }

  @Test func proposalLosses() throws {
    let objectness = try fixture.floats("proposal_loss/objectness")
    let logits = try tensor(objectness.flatMap { [0, $0] }, [120, 2])
    let deltas = try tensor(fixture.floats("proposal_loss/deltas"), [120, 4])
    let labels = try fixture.integers("proposal_loss/labels")
    let targets = try fixture.floats("proposal_loss/targets")
    let rows = try fixture.integers("proposal_loss/rows").map { Int($0) }
    logits.requiresGrad = true
    deltas.requiresGrad = true
    let positives = rows.filter { labels[$0] > 0 }
    let sample = HeadSample(
      logits: try logits.gatherRows(rows), labels: try integers(rows.map { labels[$0] }, [40]),
      deltas: try deltas.gatherRows(positives),
      targets: try tensor(
        positives.flatMap { targets[4 * $0..<4 * $0 + 4] }, [positives.count, 4]),
      rows: rows, positiveRows: positives, positiveClasses: positives.map { _ in 0 })
    let pair = [try sample.classificationLoss(), try sample.regressionLoss(beta: 1.0 / 9)]
    try compare(pair.map(\.item), "proposal_loss/values")
    try Tape.backward(from: Tensor.weightedSum(pair.map { ($0, 1) }))
    let gradient = try logits.gradient!.values()
    try compare((0..<120).map { gradient[2 * $0 + 1] }, "proposal_loss/grad_objectness")
    // Two-class softmax: what one logit gains the other loses.
    for row in 0..<120 { #expect(abs(gradient[2 * row] + gradient[2 * row + 1]) < 1e-7) }
    try compare(deltas.gradient!.values(), "proposal_loss/grad_deltas")
  }

  @Test func withoutPositivesRegressionIsZero() throws {
    let logits = try tensor([1, 2, 3, 4], [2, 2])
    let deltas = try Tensor.zeros([5, 4])
    logits.requiresGrad = true
    deltas.requiresGrad = true
    let sample = HeadSample(
      logits: logits, labels: try integers([0, 0], [2]), deltas: try deltas.gatherRows([]),
      targets: try Tensor.zeros([0, 4]), rows: [0, 1], positiveRows: [], positiveClasses: [])
    let loss = try sample.regressionLoss(beta: 1)
    #expect(loss.item == 0)
    try Tape.backward(
      from: Tensor.weightedSum([(loss, 1), (try sample.classificationLoss(), 1)]))
    #expect(try deltas.gradient?.values().allSatisfy { $0 == 0 } ?? true)
    #expect(try logits.gradient!.values().allSatisfy { $0.isFinite && $0 != 0 })
  }

  @Test func anEmptySampleIsZero() throws {
    let sample = HeadSample(
      logits: try Tensor.zeros([0, 3]), labels: try integers([], [0]),
      deltas: try Tensor.zeros([0, 4]), targets: try Tensor.zeros([0, 4]), rows: [],
      positiveRows: [], positiveClasses: [])
    #expect(try sample.classificationLoss().item == 0 && sample.regressionLoss(beta: 1).item == 0)
    #expect(sample.normalizer == 1)
  }
}
