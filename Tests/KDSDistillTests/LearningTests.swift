import KDSDetection
import KDSDistill
import KDSTensor
import Testing

/// Not how well, but that it learns at all: signs of gradients, updates and targets have to agree.
@Suite struct LearningTests {
  /// First and last value of each metric over steps on one scene.
  private func repeated(
    _ parts: [Chen2017Configuration], steps: Int
  ) throws -> [String: (first: Double, last: Double)] {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: parts.isEmpty ? [] : [Tiny.teacher()],
      options: Tiny.options(parts, optimizer: "adamw", lr: 0.005))
    let batch = try Tiny.batch(1)
    try trainer.step(batch)
    let first = trainer.metrics
    for _ in 1..<steps { try trainer.step(batch) }
    return Dictionary(
      uniqueKeysWithValues: first.map {
        ($0.name, (first: $0.value, last: trainer.metric($0.name)))
      })
  }

  @Test func plainTrainingLearnsAScene() throws {
    let found = try repeated([], steps: 60)
    #expect(found["loss"]!.last < 0.6 * found["loss"]!.first)
    #expect(found["loss_objectness"]!.last < 0.6 * found["loss_objectness"]!.first)
  }

  @Test func theStudentComesCloserToItsTeacher() throws {
    // Soft labels alone: this teacher is not trained, so the hard ones would pull elsewhere.
    let found = try repeated(
      [
        chen {
          $0.regression = "l2"
          $0.classification = "plain"
          $0.mu = 0
        }
      ], steps: 60)
    #expect(found["distill_hint"]!.last < 0.7 * found["distill_hint"]!.first)
    for head in ["rpn", "rcn"] {
      let name = "distill_\(head)_classification"
      #expect(found[name]!.last < found[name]!.first)
    }
    #expect(found["loss"]!.last < found["loss"]!.first)
  }
}
