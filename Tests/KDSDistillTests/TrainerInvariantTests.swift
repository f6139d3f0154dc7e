import KDSDetection
import KDSDistill
import KDSKernels
import KDSNN
import KDSTensor
import Testing

/// What must hold for any method: nothing added is nothing changed, teachers stand still, runs repeat.
@Suite struct TrainerInvariantTests {
  private func run(
    _ parts: [Chen2017Configuration], teachers: Int = 1, steps: Int = 5, norm: String = "batch",
    optimizer: String = "sgd"
  ) throws -> (student: FasterRCNN, trainer: Trainer) {
    let student = try Tiny.detector(1, norm: norm)
    let trainer = try Trainer(
      student: student, teachers: try (0..<teachers).map { try Tiny.teacher(100 + UInt64($0)) },
      options: Tiny.options(parts, optimizer: optimizer))
    try train(trainer, steps: steps)
    return (student, trainer)
  }

  @Test(arguments: [
    [chen { $0.scale = 0 }],
    [
      chen {
        $0.mu = 1
        $0.nu = 0
        $0.gamma = 0
      }
    ], [],
  ])
  func nothingAddedIsPlainTraining(parts: [Chen2017Configuration]) throws {
    let plain = try bits(run([], teachers: 0).student)
    let distilled = try bits(run(parts).student)
    #expect(differences(plain, distilled) == [])
    // The comparison can fail: the method as it is by default moves everything that learns.
    let moved = differences(plain, try bits(run([chen()]).student))
    #expect(moved.contains("backbone.conv1.weight") && moved.contains("rpn.head.conv.0.0.weight"))
  }

  @Test func nothingAddedFromTwoTeachersIsPlainTraining() throws {
    let plain = try bits(run([], teachers: 0, steps: 2).student)
    let parts = [chen { $0.scale = 0 }]
    #expect(differences(plain, try bits(run(parts, teachers: 2, steps: 2).student)) == [])
  }

  @Test func teachersStandStill() throws {
    let (student, teacher) = (try Tiny.detector(1), try Tiny.teacher())
    teacher.setTraining(true)
    let trainer = try Trainer(
      student: student, teachers: [teacher], options: Tiny.options([chen()]))
    let scene = try teacher.prepare(Tiny.batch(50))
    func outputs() throws -> [String: [UInt32]] {
      try bits(Tape.withoutGrad { try teacher.densePass(scene).taps })
    }
    let (before, said) = (try bits(teacher), try outputs())
    try train(trainer, steps: 3)
    #expect(differences(before, try bits(teacher)) == [])
    #expect(differences(said, try outputs()) == [])
    #expect(teacher.namedParameters().allSatisfy { $0.tensor.gradient == nil })
    #expect(
      !trainer.trainedParameters().contains { entry in
        teacher.namedParameters().contains { $0.tensor === entry.tensor }
      })
  }

  /// Batch normalization in a teacher would move its statistics if the teacher ran in training mode.
  @Test func aTeachersStatisticsStandStill() throws {
    let teacher = try Tiny.teacher { $0.backbone.norm = "batch" }
    let before = try bits(teacher)
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [teacher], options: Tiny.options([chen()]))
    try train(trainer, steps: 2)
    #expect(differences(before, try bits(teacher)) == [])
  }

  @Test(arguments: ["sgd", "adamw"])
  func oneSeedOneRun(optimizer: String) throws {
    let (first, second) = (
      try run([chen()], steps: 3, optimizer: optimizer),
      try run([chen()], steps: 3, optimizer: optimizer)
    )
    #expect(differences(try bits(first.student), try bits(second.student)) == [])
    #expect(
      differences(try bits(first.trainer.state()), try bits(second.trainer.state())) == [])
  }

  @Test func anotherSeedIsAnotherRun() throws {
    func weights(_ seed: Int) throws -> [String: [UInt32]] {
      let student = try Tiny.detector(1)
      var options = Tiny.options()
      options.common.seed = seed
      try train(Trainer(student: student, teachers: [], options: options), steps: 1)
      return try bits(student)
    }
    #expect(try differences(weights(1), weights(2)) != [])
  }

  @Test func threadsChangeNoMoreThanRounding() throws {
    let before = Threads.count
    defer { Threads.count = before }
    func weights(_ threads: Int) throws -> [(name: String, values: [Float])] {
      Threads.count = threads
      return try run([chen()], steps: 3).student.namedParameters().map {
        ($0.name, try $0.tensor.values())
      }
    }
    let (one, two) = (try weights(1), try weights(2))
    for (a, b) in zip(one, two) {
      let gap = zip(a.values, b.values).map { abs($0 - $1) }.max() ?? 0
      // Sums over images and pixels are split differently: roundings of 1e-7, three updates of 2 %.
      // A different draw of anchors or regions changes weights by 1e-3 and more.
      #expect(gap < 1e-5, "\(a.name): \(gap)")
    }
  }

  /// The loop calls forward and finish; a forward pass that was thrown away leaves no trace.
  @Test func anAbandonedForwardPassLeavesNoTrace() throws {
    func weights(_ abandon: Bool) throws -> [String: [UInt32]] {
      let student = try Tiny.detector(1)
      let trainer = try Trainer(
        student: student, teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
      if abandon { try trainer.forward(Tiny.batch(9)) }
      try train(trainer, steps: 1)
      return try bits(student)
    }
    #expect(try differences(weights(false), weights(true)) == [])
  }

  @Test func clippingLimitsTheUpdate() throws {
    let student = try Tiny.detector(1)
    var options = Tiny.options(lr: 0.5)
    options.common.optimizer.momentum = 0
    options.common.optimizer.weight_decay = 0
    options.common.clip_norm = 0.125
    let trainer = try Trainer(student: student, teachers: [], options: options)
    let before = try student.namedParameters().map { try $0.tensor.values() }
    try train(trainer, steps: 1)
    #expect(trainer.metric("grad_norm") > 0.125)
    let after = try student.namedParameters().map { try $0.tensor.values() }
    let moved = zip(before, after).reduce(0.0) { total, pair in
      total + zip(pair.0, pair.1).reduce(0.0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
    }
    // lr · clip_norm; weights of order 1 round to 1e-7.
    #expect(abs(moved.squareRoot() - 0.0625) < 1e-5)
  }
}
