import KDSDetection
import KDSKernels
import KDSNN
import KDSTensor
import Testing

@testable import KDSDistill

/// The hint of Chen et al. 2017 and its adaptation layer.
@Suite struct ChenHintTests {
  /// Gradients that the hint alone leaves, by parameter name.
  private func gradients(gamma: Double) throws -> [String: [Float]] {
    let (student, teacher) = (try Tiny.detector(1), try Tiny.teacher())
    let configuration = chen {
      $0.gamma = gamma
      $0.classification = ""
      $0.regression = ""
    }
    let part = try Chen2017(
      configuration, student: student, teacher: teacher, share: 1, Initializer(seed: 3))
    let batch = try Tiny.batch(4)
    let pass = try student.training(student.prepare(batch), seed: 11)
    let terms = try part.terms(pass, TeacherPass(teacher, teacher.prepare(batch)))
    #expect(terms.map(\.name) == ["distill_hint"])
    try Tape.backward(from: Tensor.weightedSum(terms.map { ($0.tensor, $0.weight) }))
    let all = student.namedParameters() + part.connectors.namedParameters()
    return try Dictionary(
      uniqueKeysWithValues: all.compactMap { entry in
        try entry.tensor.gradient.map { (entry.name, try $0.values()) }
      })
  }

  @Test func doubleGammaIsADoubleGradient() throws {
    let (single, double) = (try gradients(gamma: 0.5), try gradients(gamma: 1))
    #expect(single.keys.contains("hint.adaptation.weight"))
    #expect(single.keys.contains("backbone.conv1.weight"))
    #expect(!single.keys.contains("rpn.head.conv.0.0.weight"))
    #expect(single.values.allSatisfy { $0.contains { $0 != 0 } })
    for (name, values) in single {
      // Everything behind the hint is linear in its gradient, and 2 is exact in binary.
      #expect(double[name]! == values.map { 2 * $0 }, "\(name)")
    }
  }

  @Test(arguments: [0.125, 0.25])
  func theAdaptationLayerLearns(teacherWidth: Double) throws {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher(width: teacherWidth)],
      options: Tiny.options([chen()]))
    let channels = Int(teacherWidth * 128)
    let name = "connector.0.hint.adaptation.weight"
    let weight = try #require(trainer.trainedParameters().first { $0.name == name }).tensor
    #expect(weight.shape == [channels, 16, 1, 1])
    #expect(trainer.trainedParameters().contains { $0.name == "connector.0.hint.adaptation.bias" })
    let before = try trainer.connectorParameters().map { try $0.tensor.values() }
    try train(trainer, steps: 1)
    let after = try trainer.connectorParameters().map { try $0.tensor.values() }
    for (old, new) in zip(before, after) {
      let moved = zip(old, new).filter { $0 != $1 }.count
      // One step of the whole layer: a weight stays only where its gradient rounds away.
      #expect(moved > old.count / 2)
    }
    #expect(trainer.report.map(\.channels) == ["16 -> \(channels) by 1x1 convolution"])
  }

  /// The student itself must not know of the layer: it is not exported.
  @Test func theAdaptationLayerIsNoPartOfTheStudent() throws {
    let (student, plain) = (try Tiny.detector(1), try Tiny.detector(1))
    let trainer = try Trainer(
      student: student, teachers: [Tiny.teacher()], options: Tiny.options([chen()]))
    try train(trainer, steps: 1)
    #expect(student.namedParameters().map(\.name) == plain.namedParameters().map(\.name))
    #expect(student.namedBuffers().map(\.name) == plain.namedBuffers().map(\.name))
  }

  // MARK: - Unlike maps

  private func connector(_ from: Int, _ to: Int) throws -> FeatureConnector {
    try FeatureConnector(
      student: FeatureDescription(name: "conv5", channels: from, stride: 16),
      teacher: FeatureDescription(name: "conv5_3", channels: to, stride: 16), adaptation: true,
      Initializer(seed: 1))
  }

  /// AlexNet's 256 channels and 39 rows against VGG16's 512 and 38 (short side 600).
  @Test func offByOneIsCropped() throws {
    let connect = try connector(256, 512)
    let student = try Initializer(seed: 2).normal([1, 256, 39, 5], deviation: 1)
    let teacher = try Initializer(seed: 3).normal([1, 512, 38, 4], deviation: 1)
    student.requiresGrad = true
    let (a, b) = try connect(student, teacher)
    #expect(a.shape == [1, 512, 38, 4] && b.shape == a.shape)
    #expect(try b.values() == teacher.values())
    #expect(connect.report.space == "cropped to 38x4 (student 39x5, teacher 38x4)")
    try Tape.backward(from: a.hint(teacher: b, reduction: .mean))
    let gradient = try #require(student.gradient).values()
    // The last row and column were cut off, so nothing comes back there.
    for row in 0..<39 {
      for column in 0..<5 {
        #expect((gradient[row * 5 + column] == 0) == (row == 38 || column == 4))
      }
    }
  }

  @Test func aLargerTeacherLosesItsBorder() throws {
    let connect = try connector(8, 12)
    let student = try Initializer(seed: 2).normal([2, 8, 4, 5], deviation: 1)
    let teacher = try Initializer(seed: 3).normal([2, 12, 5, 5], deviation: 1)
    let (a, b) = try connect(student, teacher)
    #expect(a.shape == [2, 12, 4, 5])
    let all = try teacher.values()
    let kept = (0..<24).flatMap { plane in all[plane * 25..<plane * 25 + 20] }
    #expect(try b.values() == kept)
  }

  @Test func unlikeSizesAreResized() throws {
    let connect = try connector(8, 12)
    let student = try Initializer(seed: 2).normal([1, 8, 4, 6], deviation: 1)
    let teacher = try Initializer(seed: 3).normal([1, 12, 8, 12], deviation: 1)
    let (a, b) = try connect(student, teacher)
    #expect(a.shape == [1, 12, 8, 12] && b === teacher)
    #expect(connect.report.space == "student 4x6 resized to teacher 8x12")
  }

  @Test func aStepSaysWhatItDidAboutUnlikeMaps() throws {
    func space(_ change: (inout FasterRCNNConfiguration) -> Void) throws -> String {
      let teacher = try Tiny.teacher(width: 0.125, change: change)
      let trainer = try Trainer(
        student: Tiny.detector(1), teachers: [teacher], options: Tiny.options([chen()]))
      #expect(trainer.report.map(\.space) == ["not seen yet"])
      try train(trainer, steps: 2)
      #expect(trainer.metrics.allSatisfy { $0.value.isFinite })
      return trainer.report[0].space
    }
    #expect(try space { _ in } == "same 6x7")
    #expect(
      try space { $0.backbone.output_stride = 4 } == "student 6x7 resized to teacher 12x14")
    // 56 px of the padded batch become 57 to 64: one column more at stride 8.
    #expect(
      try space { $0.size_divisor = 64 } == "student 6x7 resized to teacher 8x8")
  }

  @Test func aHintBetweenNamedLayers() throws {
    let trainer = try Trainer(
      student: Tiny.detector(1), teachers: [Tiny.teacher()],
      options: Tiny.options([chen { $0.hint_layer = "layer1:layer2" }]))
    try train(trainer, steps: 1)
    #expect(trainer.report[0].student == "backbone.layer1")
    #expect(trainer.report[0].teacher == "backbone.layer2")
    #expect(trainer.report[0].strides == "4 / 8")
    #expect(trainer.report[0].space == "student 12x14 resized to teacher 6x7")
    let error = #expect(throws: KDSError.self) {
      try Trainer(
        student: Tiny.detector(1), teachers: [Tiny.teacher()],
        options: Tiny.options([chen { $0.hint_layer = "conv9" }]))
    }
    #expect("\(error!)".contains("conv9") && "\(error!)".contains("layer3"))
  }

  @Test func withoutAdaptationChannelsMustMatch() throws {
    let error = #expect(throws: KDSError.self) {
      try Trainer(
        student: Tiny.detector(1), teachers: [Tiny.teacher()],
        options: Tiny.options([chen { $0.adaptation = false }]))
    }
    #expect("\(error!)".contains("16") && "\(error!)".contains("32"))
  }

  // MARK: - Values

  /// Twelve channels in blocks of 8 or 16: padded channels must not count.
  @Test(arguments: [false, true])
  func valueAndGradientInBlocks(absolute: Bool) throws {
    let shape = [2, 12, 3, 5]
    let v = try Initializer(seed: 4).normal(shape, deviation: 1)
    let z = try Initializer(seed: 5).normal(shape, deviation: 1)
    let (a, b) = (try v.values(), try z.values())
    let differences = zip(a, b).map { $0 - $1 }
    let sum = differences.reduce(0.0) { $0 + Double(absolute ? abs($1) : $1 * $1) }
    let slope = differences.map { absolute ? ($0 > 0 ? 1 : -1) : 2 * $0 }
    for layout in [Layout.plain, .blocked(8), .blocked(16)] {
      for mean in [false, true] {
        let student = try v.copied().inLayout(layout)
        student.requiresGrad = true
        let loss = try student.hint(
          teacher: z, distance: absolute ? .l1 : .l2, reduction: mean ? .mean : .sum)
        try Tape.backward(from: loss)
        let scale: Float = mean ? 1 / Float(v.count) : 1
        // 360 terms in single precision.
        #expect(abs(Double(loss.item) / (sum * Double(scale)) - 1) < 1e-5)
        let found = try student.gradient!.values()
        for index in found.indices { #expect(abs(found[index] - slope[index] * scale) < 1e-6) }
        #expect(z.gradient == nil)
      }
    }
    #expect(try v.hint(teacher: v, distance: absolute ? .l1 : .l2, reduction: .mean).item == 0)
  }
}
