import KDSDetection
import KDSDistill
import KDSNN
import KDSTensor
import Testing

/// Which terms Chen et al. 2017 adds, and how large they are.
@Suite struct ChenTermsTests {
  static let detection = [
    "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg",
  ]
  static let classification = ["distill_rpn_classification", "distill_rcn_classification"]
  static let regression = ["distill_rpn_regression", "distill_rcn_regression"]
  static let hint = ["distill_hint"]

  /// One row of the paper's Table 4.
  struct Row: CustomStringConvertible {
    var description: String
    var terms: [String]
    var change: (inout Chen2017Configuration) -> Void
  }

  static func row(
    _ name: String, _ terms: [String], _ classification: String, _ regression: String,
    hint: Bool = false, adaptation: Bool = false
  ) -> Row {
    Row(description: name, terms: terms) {
      $0.classification = classification
      $0.regression = regression
      $0.hint = hint
      $0.adaptation = adaptation
    }
  }

  static let table4: [Row] = [
    Row(description: "Base", terms: []) { $0.scale = 0 },
    row("L2", regression, "", "l2"), row("L2-B", regression, "", "bounded"),
    row("CLS", classification, "plain", ""), row("CLS-W", classification, "weighted", ""),
    row("Hints", hint, "", "", hint: true),
    row("Hints-A", hint, "", "", hint: true, adaptation: true),
    row("L2-B+CLS-W", classification + regression, "weighted", "bounded"),
    row(
      "L2-B+CLS-W+Hints-A", classification + regression + hint, "weighted", "bounded", hint: true,
      adaptation: true),
  ]

  @Test(arguments: table4)
  func everyRowOfTable4(row: Row) throws {
    // "Hints" has no adaptation layer, so its maps must have equal channels.
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher(width: 0.125)],
      options: Tiny.options([chen(row.change)]))
    try train(trainer, steps: 1)
    let names = trainer.metrics.map(\.name)
    #expect(Set(names) == Set(Self.detection + row.terms + ["loss", "lr", "grad_norm"]))
    #expect(names.count == Set(names).count)
    for (name, value) in trainer.metrics {
      #expect(value.isFinite && value > 0, "\(name): \(value)")
    }
    let sum = (Self.detection + row.terms).reduce(0.0) { $0 + trainer.metric($1) }
    // Single precision sum of at most nine terms.
    #expect(abs(sum - trainer.metric("loss")) < 1e-5 * sum)
  }

  @Test func headsCanBeLeftOut() throws {
    func names(_ change: (inout Chen2017Configuration) -> Void) throws -> Set<String> {
      let trainer = try Trainer(
        student: Tiny.detector(1), teachers: [Tiny.teacher()],
        options: Tiny.options([chen(change)]))
      try train(trainer, steps: 1)
      return Set(trainer.metrics.map(\.name).filter { $0.hasPrefix("distill") })
    }
    #expect(
      try names { $0.rpn = false } == [
        "distill_rcn_classification", "distill_rcn_regression", "distill_hint",
      ])
    #expect(
      try names {
        $0.rcn = false
        $0.gamma = 0
      } == ["distill_rpn_classification", "distill_rpn_regression"])
    #expect(try names { $0.nu = 0 }.contains("distill_rcn_regression") == false)
  }

  /// Terms of one pass by name: unweighted value and weight.
  private func terms(
    _ change: (inout Chen2017Configuration) -> Void, share: Float = 1
  ) throws -> [String: (value: Float, weight: Float)] {
    let (student, teacher) = (try Tiny.detector(1), try Tiny.teacher())
    teacher.setTraining(false)
    let part = try Chen2017(
      chen(change), student: student, teacher: teacher, share: share, Initializer(seed: 3))
    let batch = try Tiny.batch(4)
    let pass = try student.training(student.prepare(batch), seed: 11)
    let found = try part.terms(pass, TeacherPass(teacher, teacher.prepare(batch)))
    return Dictionary(
      uniqueKeysWithValues: found.map { ($0.name, (value: $0.tensor.item, weight: $0.weight)) })
  }

  @Test func weightsFollowTheEquations() throws {
    let found = try terms {
      $0.scale = 0.5
      $0.mu = 0.25
      $0.nu = 3
      $0.gamma = 2
    }
    for name in Self.classification { #expect(found[name]?.weight == Float(0.375)) }
    for name in Self.regression { #expect(found[name]?.weight == 1.5) }
    #expect(found["distill_hint"]?.weight == 1)
    let shared = try terms({ _ in }, share: 0.5)
    let whole = try terms { _ in }
    for (name, term) in whole {
      #expect(shared[name]?.weight == term.weight / 2)
      #expect(shared[name]?.value == term.value)
    }
  }

  @Test func theHardLossKeepsItsShare() throws {
    let (student, teacher) = (try Tiny.detector(1), try Tiny.teacher())
    func weights(_ change: (inout Chen2017Configuration) -> Void) throws -> [Float] {
      let part = try Chen2017(
        chen(change), student: student, teacher: teacher, share: 1, Initializer(seed: 3))
      return Self.detection.map { part.detectionWeight($0) }
    }
    #expect(try weights { $0.mu = 0.25 } == [0.25, 1, 0.25, 1])
    #expect(try weights { $0.mu = 0 } == [0, 1, 0, 1])
    #expect(try weights { $0.classification = "" } == [1, 1, 1, 1])
    #expect(try weights { $0.rcn = false } == [0.5, 1, 1, 1])
    #expect(try weights { $0.scale = 0.5 } == [0.75, 1, 0.75, 1])
  }

  @Test func backgroundWeightAndTemperatureReachTheSoftLoss() throws {
    let name = "distill_rcn_classification"
    let plain = try terms { $0.classification = "plain" }[name]!.value
    let one = try terms { $0.background_weight = 1 }[name]!.value
    let weighted = try terms { $0.background_weight = 1.5 }[name]!.value
    let hot = try terms { $0.temperature = 4 }[name]!.value
    #expect(plain == one)
    #expect(weighted > plain && hot != weighted)
  }

  @Test func theMarginKeepsMorePositivesActive() throws {
    for name in Self.regression {
      let none = try terms { $0.margin = 0 }[name]!.value
      let wide = try terms { $0.margin = 1e6 }[name]!.value
      #expect(wide >= none && wide > 0)
    }
  }

  @Test func hintReductionsDifferByTheElementCount() throws {
    let mean = try terms { _ in }["distill_hint"]!.value
    let sum = try terms { $0.hint_reduction = "sum" }["distill_hint"]!.value
    // The last map: 2 images, 32 teacher channels, 48 x 56 px at stride 8.
    let count: Float = 2 * 32 * 6 * 7
    #expect(abs(sum / mean - count) < 1e-4 * count)
    let absolute = try terms { $0.hint_distance = "l1" }["distill_hint"]!.value
    #expect(absolute > 0 && absolute != mean)
  }

  // MARK: - Several teachers

  @Test func twoTeachersShareTheTerms() throws {
    let student = try Tiny.detector(1)
    let twins = [try Tiny.teacher(), try Tiny.teacher()]
    let trainer = try Trainer(
      student: student, teachers: twins, options: Tiny.options([chen()]))
    let single = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    try train(trainer, steps: 1)
    try train(single, steps: 1)
    for name in Self.classification + Self.regression {
      // Halves are exact, so that two equal teachers weigh as much as one.
      #expect(trainer.metric(name) + trainer.metric(name + "_2") == single.metric(name), "\(name)")
    }
    for name in Self.detection { #expect(trainer.metric(name) == single.metric(name)) }
    let adapters = trainer.connectorParameters().map(\.name)
    #expect(
      adapters == [
        "connector.0.hint.adaptation.weight", "connector.0.hint.adaptation.bias",
        "connector.1.hint.adaptation.weight", "connector.1.hint.adaptation.bias",
      ])
    let first = try trainer.connectorParameters()[0].tensor.values()
    #expect(try first != trainer.connectorParameters()[2].tensor.values())
    #expect(trainer.report.count == 2)
  }

  @Test func unlikeTeachersTrainTogether() throws {
    let trainer = try Trainer(
      student: Tiny.detector(1),
      teachers: [Tiny.teacher(), Tiny.teacher(7, width: 0.5, scale: 2)],
      options: Tiny.options([chen()]))
    try train(trainer, steps: 2)
    #expect(trainer.metrics.allSatisfy { $0.value.isFinite })
    #expect(trainer.metric("distill_rcn_classification_2") > 0)
  }

  // MARK: - Scenes without objects

  @Test func imagesWithoutBoxesTrain() throws {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    for step in 0..<2 {
      try trainer.step(Tiny.batch(UInt64(step), boxes: 0))
      for (name, value) in trainer.metrics { #expect(value.isFinite, "\(name)") }
      for name in ["loss_rpn_box_reg", "loss_box_reg"] + Self.regression {
        #expect(trainer.metric(name) == 0, "\(name)")
      }
      #expect(trainer.metric("loss_objectness") > 0 && trainer.metric("loss_classifier") > 0)
      #expect(trainer.metric("distill_hint") > 0)
    }
    let mixed = try RawBatch(images: [Tiny.image(1, boxes: 0), Tiny.image(2)], hasTargets: true)
    try trainer.step(mixed)
    #expect(trainer.metrics.allSatisfy { $0.value.isFinite })
    #expect(trainer.metric("loss_box_reg") > 0)
  }

  /// No proposal is large enough and there is no box: not one region.
  @Test func aBatchWithoutARegionTrains() throws {
    let trainer = try Trainer(
      student: Tiny.detector(1) { $0.rpn.min_size = 4000 }, teachers: [Tiny.teacher()],
      options: Tiny.options([chen()]))
    try trainer.step(Tiny.batch(1, boxes: 0))
    #expect(trainer.metrics.allSatisfy { $0.value.isFinite })
    #expect(trainer.metric("loss_classifier") == 0)
    #expect(trainer.metric("distill_rcn_classification") == 0)
  }
}
