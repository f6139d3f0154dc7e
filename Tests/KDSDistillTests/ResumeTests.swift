import KDSDetection
import KDSDistill
import KDSNN
import KDSTensor
import Testing

/// Interrupted runs, and steps that go wrong.
@Suite struct ResumeTests {
  private func copy(_ from: Module, to: Module) throws {
    let values = Dictionary(
      uniqueKeysWithValues: (from.namedParameters() + from.namedBuffers()).map {
        ($0.name, $0.tensor)
      })
    for (name, tensor) in to.namedParameters() + to.namedBuffers() {
      tensor.floats.update(from: values[name]!.floats, count: tensor.count)
      tensor.markChanged()
    }
  }

  private func makeOptions(_ optimizer: String) -> TrainerOptions {
    var options = Tiny.options([chen()], optimizer: optimizer)
    options.common.schedule.name = "cosine"
    options.common.schedule.total_steps = 6
    options.common.schedule.warmup_steps = 2
    return options
  }

  @Test(arguments: ["sgd", "adam", "adamw"])
  func aResumedRunIsTheSameRun(optimizer: String) throws {
    let options = makeOptions(optimizer)
    func trainer(_ student: FasterRCNN) throws -> Trainer {
      try Trainer(student: student, teachers: [Tiny.teacher()], options: options)
    }
    let whole = try Tiny.detector(1, norm: "batch")
    let wholeTrainer = try trainer(whole)
    try train(wholeTrainer, steps: 3)

    let resumed = try Tiny.detector(2, norm: "batch")
    try copy(whole, to: resumed)
    let resumedTrainer = try trainer(resumed)
    for (name, tensor) in wholeTrainer.state() {
      try resumedTrainer.load(name, tensor.copied())
    }
    resumedTrainer.stepCount = wholeTrainer.stepCount
    #expect(resumedTrainer.stepCount == 3)

    try train(wholeTrainer, steps: 3, from: 3)
    try train(resumedTrainer, steps: 3, from: 3)
    #expect(differences(try bits(whole), try bits(resumed)) == [])
    #expect(
      differences(try bits(wholeTrainer.state()), try bits(resumedTrainer.state())) == [])
    #expect(wholeTrainer.metric("lr") == resumedTrainer.metric("lr"))
  }

  @Test func theStateNamesWhatARunNeeds() throws {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    try train(trainer, steps: 1)
    let names = Set(trainer.state().map(\.name))
    #expect(names.contains("connector.0.hint.adaptation.weight"))
    for (name, _) in trainer.trainedParameters() {
      #expect(names.contains("optimizer.momentum/\(name)"), "\(name)")
    }
  }

  @Test func statesThatDoNotFitAreRefused() throws {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    let one = try Tensor.zeros([1])
    let unknown = #expect(throws: KDSError.self) { try trainer.load("connector.7.w", one) }
    #expect("\(unknown!)".contains("connector.7.w"))
    let shape = #expect(throws: KDSError.self) {
      try trainer.load("connector.0.hint.adaptation.weight", one)
    }
    #expect("\(shape!)".contains("[32, 16, 1, 1]") && "\(shape!)".contains("[1]"))
    try trainer.load("optimizer.momentum/backbone.conv1.weight", one)
    #expect(throws: KDSError.self) { try train(trainer, steps: 1) }
  }

  // MARK: - Steps that go wrong

  @Test func aLossThatIsNotFiniteLeavesTheWeights() throws {
    let student = try Tiny.detector(1)
    let trainer = try Trainer(
      student: student, teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    try train(trainer, steps: 1)
    let bias = student.roiHead.namedParameters().first { $0.name.hasSuffix("cls_score.bias") }!
      .tensor
    let good = bias.floats[0]
    bias.floats[0] = .infinity
    let before = (try bits(student), try bits(trainer.state()))
    let error = #expect(throws: KDSError.self) { try train(trainer, steps: 1, from: 1) }
    #expect("\(error!)".contains("loss_classifier") && "\(error!)".contains("step 1"))
    #expect(differences(before.0, try bits(student)) == [])
    #expect(differences(before.1, try bits(trainer.state())) == [])
    #expect(trainer.stepCount == 1)
    // It goes on from there as if nothing had been.
    bias.floats[0] = good
    try train(trainer, steps: 1, from: 1)
    #expect(try differences(bits(student), bits(undisturbed())) == [])
  }

  @Test func aGradientThatIsNotFiniteLeavesTheWeights() throws {
    let student = try Tiny.detector(1)
    let trainer = try Trainer(
      student: student, teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    try train(trainer, steps: 1)
    let before = (try bits(student), try bits(trainer.state()))
    try trainer.forward(Tiny.batch(8))
    let map = try trainer.pendingTaps().first { $0.name == "student.rpn.objectness" }!.tensor
    let broken = Tape.record(try Tensor.scalar(1), "broken", [map]) { _ in
      [try Tensor(filled: .nan, shape: map.shape, layout: map.layout)]
    }
    let error = #expect(throws: KDSError.self) {
      try trainer.finish(extra: [LossTerm(name: "broken", tensor: broken, weight: 1)])
    }
    #expect("\(error!)".contains("gradient"))
    #expect(differences(before.0, try bits(student)) == [])
    #expect(differences(before.1, try bits(trainer.state())) == [])
    try train(trainer, steps: 1, from: 1)
    #expect(try differences(bits(student), bits(undisturbed())) == [])
    let reference = try undisturbedTrainer().state()
    #expect(differences(try bits(trainer.state()), try bits(reference)) == [])
  }

  /// Two steps without an accident.
  private func undisturbedTrainer() throws -> Trainer {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    try train(trainer, steps: 2)
    return trainer
  }

  private func undisturbed() throws -> Module { try undisturbedTrainer().student }
}
