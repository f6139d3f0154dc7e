import KDSDetection
import KDSDistill
import KDSKernels
import KDSNN
import KDSTensor
import Testing

/// What student and teacher must have in common, and how unlike inputs are brought together.
@Suite struct ChenPairingTests {
  private func refusal(
    _ parts: [Chen2017Configuration] = [chen()], student: FasterRCNN? = nil,
    teacher: FasterRCNN? = nil
  ) throws -> String {
    let error = #expect(throws: KDSError.self) {
      try Trainer(
        student: student ?? Tiny.detector(1), teachers: [teacher ?? Tiny.teacher()],
        options: Tiny.options(parts))
    }
    return error.map { "\($0)" } ?? ""
  }

  // MARK: - A teacher that sees larger images

  @Test func aTeacherAtDoubleSizeTeaches() throws {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher(scale: 2)],
      options: Tiny.options([chen()]))
    try train(trainer, steps: 2)
    #expect(trainer.metrics.allSatisfy { $0.value.isFinite && $0.value > 0 })
    #expect(trainer.report[0].space == "student 6x7 resized to teacher 12x14")
  }

  /// The teacher's region head must look at the student's regions where the teacher sees them.
  @Test func regionsAreCarriedToTheTeachersPixels() throws {
    let (student, teacher) = (try Tiny.detector(1), try Tiny.teacher(scale: 2))
    teacher.setTraining(false)
    let batch = try Tiny.batch(4)
    let pass = try student.training(student.prepare(batch), seed: 11)
    let view = try TeacherPass(teacher, teacher.prepare(batch))
    let found = try view.regionOutputs(of: pass)
    let rois = try pass.rois.values().enumerated().map { $0 % 5 == 0 ? $1 : 2 * $1 }
    let expected = try Tape.withoutGrad {
      try teacher.roiHead(view.maps.levels.map(\.tensor), Tensor(rois, shape: pass.rois.shape))
    }
    #expect(try found.logits.values() == expected.logits.values())
    #expect(try found.deltas.values() == expected.deltas.values())
    #expect(!found.logits.isTracked && !found.deltas.isTracked)
  }

  /// Scenes of two sizes go to the teacher by `teacherBatch`; the regions follow.
  @Test func aTeacherBatchOfItsOwn() throws {
    let student = try Tiny.detector(1)
    let trainer = try Trainer(
      student: student, teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    let other = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    try trainer.step(Tiny.batch(1), teacherBatch: Tiny.batch(1))
    try other.step(Tiny.batch(1))
    #expect(trainer.metrics.map(\.value) == other.metrics.map(\.value))
    try other.step(Tiny.batch(2), teacherBatch: Tiny.batch(3))
    try trainer.step(Tiny.batch(2))
    #expect(trainer.metric("loss_classifier") == other.metric("loss_classifier"))
    #expect(trainer.metric("distill_hint") != other.metric("distill_hint"))
  }

  /// A teacher that is the student's twin says what the student says: with all weights 1 the soft loss is
  /// the student's own entropy, and regression to the teacher is 0.
  @Test func aTwinAgreesRowByRow() throws {
    let (student, teacher) = (try Tiny.detector(1), try Tiny.detector(1))
    teacher.setTraining(false)
    let configuration = chen {
      $0.classification = "plain"
      $0.regression = "l2"
      $0.adaptation = false
    }
    let part = try Chen2017(
      configuration, student: student, teacher: teacher, share: 1, Initializer(seed: 3))
    let batch = try Tiny.batch(4)
    let pass = try student.training(student.prepare(batch), seed: 11)
    let terms = try part.terms(pass, TeacherPass(teacher, teacher.prepare(batch)))
    let values = Dictionary(uniqueKeysWithValues: terms.map { ($0.name, $0.tensor.item) })
    #expect(values["distill_rpn_regression"] == 0 && values["distill_rcn_regression"] == 0)
    #expect(values["distill_hint"] == 0)
    for (name, sample) in [("rpn", pass.rpn), ("rcn", pass.rcn)] {
      let entropy = try meanEntropy(sample.logits)
      #expect(abs(values["distill_\(name)_classification"]! - entropy) < 1e-5 * entropy)
    }
    try Tape.backward(from: Tensor.weightedSum(terms.map { ($0.tensor, $0.weight) }))
    // Stationary: the gradient of the cross-entropy is P_s - P_t = 0 up to the rounding of softmax.
    for (name, tensor) in student.namedParameters() {
      guard let gradient = tensor.gradient else { continue }
      #expect(try gradient.values().allSatisfy { abs($0) < 1e-6 }, "\(name)")
    }
  }

  private func meanEntropy(_ logits: Tensor) throws -> Float {
    let (rows, columns) = (logits.shape[0], logits.shape[1])
    var p = try logits.values()
    let z = p
    Kernels.softmax(z, &p, rows: rows, columns: columns)
    return -p.reduce(0) { $0 + $1 * Float(logarithm(Double($1))) } / Float(rows)
  }

  // MARK: - What does not fit

  @Test func anchorsOutOfProportionAreNamed() throws {
    let sizes: [Float] = [8, 14, 24]
    // Double the input but the same anchors: they cover half of the scene.
    let teacher = try Tiny.teacher(scale: 2) { $0.anchor_sizes = sizes }
    let message = try refusal(teacher: teacher)
    #expect(message.contains("[8.0, 14.0, 24.0]") && message.contains("48 to"))
    #expect(message.contains("96 to") && message.contains("[4.0, 7.0, 12.0]"))
    let ratios = try Tiny.teacher { $0.anchor_ratios = [2] }
    #expect(try refusal(teacher: ratios).contains("ratios [2.0]"))
    let fewer = try Tiny.teacher { $0.anchor_sizes = [8, 14] }
    #expect(try refusal(teacher: fewer).contains("[8.0, 14.0]"))
    // Without the proposal network's terms the anchors do not matter.
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [teacher],
      options: Tiny.options([chen { $0.rpn = false }]))
    try train(trainer, steps: 1)
    #expect(trainer.metric("distill_rcn_regression").isFinite)
  }

  @Test func unlikeClassesAreRefused() throws {
    let teacher = try Tiny.teacher { $0.num_classes = 4 }
    let message = try refusal(teacher: teacher)
    #expect(message.contains("3 classes") && message.contains("4"))
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [teacher],
      options: Tiny.options([chen { $0.rcn = false }]))
    try train(trainer, steps: 1)
    #expect(trainer.metric("distill_rpn_classification") > 0)
  }

  @Test func unlikeUnitsOfOffsetsAreRefused() throws {
    let teacher = try Tiny.teacher { $0.roi.box_std = [1, 1, 1, 1] }
    #expect(try refusal(teacher: teacher).contains("box_std"))
  }

  @Test(arguments: [
    ("classification", { (c: inout Chen2017Configuration) in c.classification = "soft" }),
    ("regression", { $0.regression = "giou" }), ("hint_distance", { $0.hint_distance = "cosine" }),
    ("hint_reduction", { $0.hint_reduction = "max" }), ("mu", { $0.mu = 1.5 }),
    ("mu", { $0.mu = .nan }), ("scale", { $0.scale = -1 }), ("nu", { $0.nu = .infinity }),
    ("gamma", { $0.gamma = -0.5 }), ("margin", { $0.margin = .nan }),
    ("background_weight", { $0.background_weight = -1 }), ("temperature", { $0.temperature = 0 }),
  ])
  func badValuesAreNamed(name: String, change: (inout Chen2017Configuration) -> Void) throws {
    #expect(try refusal([chen(change)]).contains(name))
  }

  // MARK: - The trainer's arguments

  @Test func theStudentIsNotItsOwnTeacher() throws {
    let one = try Tiny.detector(1)
    #expect(throws: KDSError.self) {
      try Trainer(student: one, teachers: [one], options: Tiny.options())
    }
    let error = #expect(throws: KDSError.self) {
      try Trainer(student: one, teachers: [], options: Tiny.options([chen()]))
    }
    #expect("\(error!)".contains("teacher"))
  }

  @Test func optionsComeFromJSON() throws {
    let text = """
      {"optimizer": {"name": "adamw", "lr": 0.001}, "seed": 4, "clip_norm": 2,
       "method": {"parts": [{"name": "chen2017", "gamma": 0.25, "hint_distance": "l1"}]}}
      """
    let options = try TrainerOptions(json: text)
    #expect(options.common.optimizer.name == "adamw" && options.common.optimizer.lr == 0.001)
    #expect(options.common.seed == 4 && options.common.clip_norm == 2)
    #expect(
      options.parts == [
        chen {
          $0.gamma = 0.25
          $0.hint_distance = "l1"
        }
      ])
    #expect(try TrainerOptions(json: "") == TrainerOptions())
    for bad in [
      "[]", #"{"sead": 4}"#, #"{"method": {"parts": [{"name": "chen2018"}]}}"#,
      #"{"method": {"parts": [{"name": "chen2017", "gama": 1}]}}"#, #"{"method": {"part": []}}"#,
      #"{"method": {"parts": [3]}}"#, #"{"optimizer": {"lr": "fast"}}"#, #"{"seed": 1.5}"#,
    ] {
      #expect(throws: KDSError.self, "\(bad)") { try TrainerOptions(json: bad) }
    }
  }

  @Test func badOptionsAreRefused() throws {
    for change: (inout TrainerOptions) -> Void in [
      { $0.common.clip_norm = -1 }, { $0.common.clip_norm = .nan },
      { $0.common.optimizer.name = "lion" }, { $0.common.optimizer.lr = .nan },
      { $0.common.optimizer.momentum = 1 }, { $0.common.schedule.name = "cosine" },
      { $0.common.schedule.name = "magic" }, { $0.common.schedule.warmup_steps = -1 },
    ] {
      var options = Tiny.options()
      change(&options)
      #expect(throws: KDSError.self) {
        try Trainer(student: Tiny.detector(1), teachers: [], options: options)
      }
    }
  }

  @Test func callsOutOfOrderAreExplained() throws {
    let trainer = try Trainer(student: Tiny.detector(1), teachers: [], options: Tiny.options())
    #expect(throws: KDSError.self) { try trainer.finish() }
    #expect(throws: KDSError.self) { try trainer.pendingTaps() }
    let bare = try RawBatch(images: [Tiny.image(1, boxes: 0)], hasTargets: false)
    let error = #expect(throws: KDSError.self) { try trainer.step(bare) }
    #expect("\(error!)".contains("targets"))
    let foreign = RawImage(
      pixels: .bytes([UInt8](repeating: 9, count: 48 * 48 * 3)), channels: 3, height: 48,
      width: 48, boxes: [4, 4, 20, 20], labels: [3])
    let label = #expect(throws: KDSError.self) {
      try trainer.step(RawBatch(images: [foreign], hasTargets: true))
    }
    #expect("\(label!)".contains("label 3"))
  }

  @Test func theCallersOwnTermsJoin() throws {
    let student = try Tiny.detector(1)
    let trainer = try Trainer(
      student: student, teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    let own = try Tensor([1, 2] as [Float], shape: [2])
    try trainer.addParameter("own", own)
    #expect(throws: KDSError.self) { try trainer.addParameter("own", own) }
    try trainer.forward(Tiny.batch(1))
    let names = try trainer.pendingTaps().map(\.name)
    #expect(names.contains("student.backbone.layer3") && names.contains("teacher.roi.box_deltas"))
    let term = Tape.record(try Tensor.scalar(5), "own", [own]) { _ in
      [try Tensor(filled: 3 * 2, shape: [2])]
    }
    try trainer.finish(extra: [LossTerm(name: "own", tensor: term, weight: 2)])
    #expect(trainer.metric("own") == 10)
    // SGD with lr 0.02, gradient 6 and weight decay 1e-4.
    #expect(abs(own.floats[0] - (1 - 0.02 * (6 + 1e-4))) < 1e-6)
    #expect(trainer.state().contains { $0.name == "extra.own" })
  }
}

#if canImport(Glibc)
  import Glibc
#endif

private func logarithm(_ x: Double) -> Double { log(x) }
