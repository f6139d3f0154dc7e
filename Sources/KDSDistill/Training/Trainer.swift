import KDSDetection
import KDSKernels
import KDSNN
import KDSTensor

/// One student, its teachers, its optimizer: a step is teachers forward, student forward, terms,
/// backward, update. The caller loops over batches and keeps files.
public final class Trainer {
  public let student: any Detector
  public let options: TrainerOptions
  public let teachers: [any Detector]
  /// Steps done; schedule and random streams follow it, so that a resumed run repeats.
  public var stepCount = 0
  /// Name and value of everything that the last step computed.
  public private(set) var metrics: [(name: String, value: Double)] = []
  private let optimizer: Optimizer
  private let isHalf: Bool
  private let parts: [(teacher: Int, part: any DistillationPart)]
  private var extraParameters: [(name: String, tensor: Tensor)] = []
  private var pending: PendingStep?
  /// Running statistics before the pending step: one that fails or is given up puts them back.
  private var statistics: [(tensor: Tensor, values: [Float])] = []

  public init(
    student: any Detector, teachers: [any Detector], options: TrainerOptions
  ) throws {
    guard !teachers.contains(where: { $0 === student }) else {
      throw KDSError.argument(
        "teacher: the student cannot be its own teacher; load or clone another model")
    }
    try options.common.schedule.check()
    guard options.common.clip_norm >= 0, options.common.clip_norm.isFinite else {
      throw KDSError.argument(
        "clip_norm: \(options.common.clip_norm) must be finite and not negative")
    }
    isHalf = try Precision.isHalf(options.common.precision, "precision")
    self.student = student
    self.teachers = teachers
    self.options = options
    optimizer = try Optimizer(options.common.optimizer)
    parts = try Self.makeParts(student, teachers, options)
    for teacher in teachers {
      teacher.setTraining(false)
      teacher.setRequiresGrad(false)
    }
  }

  private static func makeParts(
    _ student: any Detector, _ teachers: [any Detector], _ options: TrainerOptions
  ) throws -> [(teacher: Int, part: any DistillationPart)] {
    let wanted = options.parts
    if wanted.isEmpty { return [] }
    guard !teachers.isEmpty else { throw KDSError.argument("method: distillation needs a teacher") }
    guard let pupil = student as? FasterRCNN else {
      throw KDSError.argument(
        "chen2017: the student must be a Faster R-CNN, not \(type(of: student)); other methods "
          + "(kd.methods, `kdswift methods`) fit other detectors")
    }
    let initializer = Initializer(
      seed: UInt64(bitPattern: Int64(options.common.seed)), stream: RandomStream.connectors)
    return try wanted.flatMap { configuration in
      try teachers.enumerated().map { index, teacher in
        guard let teacher = teacher as? FasterRCNN else {
          throw KDSError.argument(
            "chen2017: the teacher must be a Faster R-CNN, not \(type(of: teacher))")
        }
        let part = try Chen2017(
          configuration, student: pupil, teacher: teacher, share: 1 / Float(teachers.count),
          initializer)
        return (index, part)
      }
    }
  }

  // MARK: - A step

  /// Forward passes and terms. `teacherBatch` may show the same scenes at another size.
  public func forward(_ batch: RawBatch, teacherBatch: RawBatch? = nil) throws {
    if pending != nil { restoreStatistics() }
    pending = nil
    guard batch.hasTargets else { throw KDSError.argument("batch: training needs targets") }
    saveStatistics()
    try restoringOnFailure {
      try Precision.withHalf(isHalf) { try runForward(batch, teacherBatch) }
    }
  }

  private func runForward(_ batch: RawBatch, _ teacherBatch: RawBatch?) throws {
    let seed = stepSeed()
    student.setTraining(true)
    // Connectors and the caller's own tensors too: a step that was refused may have left some.
    student.clearGradients()
    for (_, tensor) in trainedParameters() { tensor.gradient = nil }
    let heads = options.common.head_taps || !parts.isEmpty
    let towers = options.common.tower_taps
    let passes = try teachers.map { teacher in
      let prepared = try teacher.prepare(teacherBatch ?? batch)
      return try teacher.withTowerTaps(towers) {
        try TeacherPass(teacher, prepared, heads: heads)
      }
    }
    let prepared = try student.prepare(batch)
    let pass = try student.withTowerTaps(towers) {
      try student.trainingPass(prepared, seed: seed)
    }
    try checkLossWeights(pass.losses.map(\.name))
    var terms = pass.losses.map { loss in
      let weight = parts.reduce(Float(1)) { $0 + $1.part.detectionWeight(loss.name) - 1 }
      let factor = Float(options.common.loss_weights[loss.name] ?? 1)
      return LossTerm(name: loss.name, tensor: loss.tensor, weight: weight * factor)
    }
    for (index, part) in parts { terms += try part.terms(pass, passes[index]) }
    pending = PendingStep(terms: Self.merged(terms), pass: pass, teachers: passes)
  }

  private func checkLossWeights(_ names: [String]) throws {
    for (name, weight) in options.common.loss_weights.sorted(by: { $0.key < $1.key }) {
      guard names.contains(name) else {
        throw KDSError.argument("loss_weights: \"\(name)\" is none of the losses \(names)")
      }
      guard weight >= 0, weight.isFinite else {
        throw KDSError.argument("loss_weights: \(weight) of \(name) must be finite, not negative")
      }
    }
  }

  /// Factor on everything that one part of the method adds to the coming steps, in the order of the
  /// options' parts.
  public func setFactor(_ factor: Double, part: Int) throws {
    let perPart = max(1, teachers.count)
    guard part >= 0, (part + 1) * perPart <= parts.count, factor >= 0, factor.isFinite else {
      throw KDSError.argument(
        "set_factor: part \(part) of \(parts.count / perPart), factor \(factor)")
    }
    for index in part * perPart..<(part + 1) * perPart { parts[index].part.factor = Float(factor) }
  }

  /// Taps of the pending step: "student.NAME" on the tape, "teacher.NAME" (of the first teacher) off
  /// it, "input.NAME" and "teacher_input.NAME" of what they saw (see `PreparedBatch.description`).
  public func pendingTaps() throws -> [(name: String, tensor: Tensor)] {
    guard let pending else {
      throw KDSError.argument("taps: there is no pending step; call forward first")
    }
    let own = pending.pass.taps + pending.pass.regionTaps
    let others = try Precision.withHalf(isHalf) {
      try pending.teachers.first.map {
        options.common.region_taps ? try $0.taps(for: pending.pass) : $0.pass.taps
      } ?? []
    }
    let seen = try pending.pass.batch.description()
    let seenByTeacher = try pending.teachers.first?.batch.description() ?? []
    let groups = [
      ("student.", own), ("teacher.", others), ("input.", seen), ("teacher_input.", seenByTeacher),
    ]
    return groups.flatMap { prefix, list in list.map { (prefix + $0.name, $0.tensor) } }
  }

  /// Backward pass and update, with the caller's own terms added.
  public func finish(extra: [LossTerm] = []) throws {
    guard let step = pending else {
      throw KDSError.argument("finish: there is no pending step; call forward first")
    }
    pending = nil
    try restoringOnFailure { try update(step.terms + extra) }
  }

  private func update(_ terms: [LossTerm]) throws {
    let total = try Tensor.weightedSum(terms.map { ($0.tensor, $0.weight) })
    let rate = options.common.optimizer.lr * options.common.schedule.factor(step: stepCount)
    metrics = terms.map { ($0.name, Double($0.weight * $0.tensor.item)) }
    metrics += [("loss", Double(total.item)), ("lr", rate)]
    for term in terms where !term.tensor.item.isFinite {
      throw KDSError.runtime(
        "step \(stepCount): \(term.name) is \(term.tensor.item); the weights were left as they are "
          + "(try a lower learning rate, warm-up or clip_norm)")
    }
    try Tape.backward(from: total)
    let learned = trainedParameters()
    let norm = gradientNorm(learned)
    metrics.append(("grad_norm", norm))
    guard norm.isFinite else {
      throw KDSError.runtime(
        "step \(stepCount): the gradient is not finite; the weights were left as they are "
          + "(try a lower learning rate, warm-up or clip_norm)")
    }
    let clip = options.common.clip_norm
    let scale = clip > 0 && norm > clip ? Float(clip / norm) : 1
    try optimizer.step(learned, learningRate: rate, gradientScale: scale)
    for (_, tensor) in learned { tensor.gradient = nil }
    stepCount += 1
  }

  // MARK: - Running statistics

  private func saveStatistics() {
    statistics = student.namedBuffers().filter { $0.tensor.dtype == .float32 }.map {
      ($0.tensor, Array(UnsafeBufferPointer(start: $0.tensor.floats, count: $0.tensor.count)))
    }
  }

  private func restoreStatistics() {
    for (tensor, values) in statistics {
      tensor.floats.update(from: values, count: values.count)
      tensor.markChanged()
    }
    statistics = []
  }

  private func restoringOnFailure(_ work: () throws -> Void) throws {
    do {
      try work()
    } catch {
      restoreStatistics()
      throw error
    }
  }

  /// `forward` and `finish` in one.
  public func step(_ batch: RawBatch, teacherBatch: RawBatch? = nil) throws {
    try forward(batch, teacherBatch: teacherBatch)
    try finish()
  }

  /// Terms of one name from several teachers become one line of the log.
  private static func merged(_ terms: [LossTerm]) -> [LossTerm] {
    var seen: [String: Int] = [:]
    return terms.map { term in
      seen[term.name, default: 0] += 1
      let count = seen[term.name]!
      return count == 1
        ? term : LossTerm(name: "\(term.name)_\(count)", tensor: term.tensor, weight: term.weight)
    }
  }

  private func gradientNorm(_ parameters: [(name: String, tensor: Tensor)]) -> Double {
    var total = 0.0
    for (_, tensor) in parameters {
      guard let gradient = tensor.gradient else { continue }
      total += Kernels.sumOfSquares(gradient.floats, gradient.count)
    }
    return total.squareRoot()
  }

  private func stepSeed() -> UInt64 {
    var mix = CounterRandom(
      seed: UInt64(bitPattern: Int64(options.common.seed)), stream: 1 << 50,
      position: UInt64(stepCount))
    return mix.next()
  }

  // MARK: - What a run keeps

  /// The student's parameters, then connectors ("connector.…"), then the caller's own.
  public func trainedParameters() -> [(name: String, tensor: Tensor)] {
    student.namedParameters().filter { $0.tensor.requiresGrad } + connectorParameters()
      + extraParameters
  }

  public func connectorParameters() -> [(name: String, tensor: Tensor)] {
    parts.enumerated().flatMap { index, entry in
      entry.part.connectors.namedParameters(prefix: "connector.\(index).")
    }
  }

  /// Adds a learned tensor of the caller's own term.
  public func addParameter(_ name: String, _ tensor: Tensor) throws {
    guard !trainedParameters().contains(where: { $0.name == name }) else {
      throw KDSError.argument("add_parameter: \"\(name)\" exists already")
    }
    tensor.requiresGrad = true
    extraParameters.append((name, tensor))
  }

  /// Optimizer state ("optimizer.…") and connectors: with the student's weights and `stepCount`, all
  /// that a resumed run needs.
  public func state() -> [(name: String, tensor: Tensor)] {
    connectorParameters() + extraParameters.map { ("extra.\($0.name)", $0.tensor) }
      + optimizer.state.sorted { $0.key < $1.key }.map { ("optimizer.\($0.key)", $0.value) }
  }

  /// Copies one entry of a saved state back.
  public func load(_ name: String, _ value: Tensor) throws {
    if name.hasPrefix("optimizer.") {
      try optimizer.restore(String(name.dropFirst("optimizer.".count)), value)
      return
    }
    let known = connectorParameters() + extraParameters.map { ("extra.\($0.name)", $0.tensor) }
    guard let target = known.first(where: { $0.name == name })?.tensor else {
      throw KDSError.argument(
        "trainer: no state is called \"\(name)\"; the method may have changed")
    }
    guard target.shape == value.shape else {
      throw KDSError.shape(
        "trainer: \(name) has shape \(target.shape), the saved one \(value.shape)")
    }
    target.floats.update(from: try value.plain().floats, count: target.count)
    target.markChanged()
  }

  /// What is compared with what.
  public var report: [ConnectorReport] { parts.flatMap { $0.part.report } }
}

/// Between `forward` and `finish`.
private struct PendingStep {
  var terms: [LossTerm]
  var pass: any TrainingPass
  var teachers: [TeacherPass]
}
