import KDSDetection
import KDSNN
import KDSTensor

/// Chen et al. 2017 for one teacher:
///
///     L_cls = μ L_hard + (1 − μ) L_soft          (eq. 2)
///     L_reg = L_smoothL1 + ν L_b                 (eq. 4)
///     L     = L_RPN + L_RCN + γ L_hint           (eq. 1)
///
/// in both heads. The teacher's region head sees the student's sampled regions; proposal outputs are
/// compared anchor by anchor.
public final class Chen2017: DistillationPart {
  public let configuration: Chen2017Configuration
  public let connectors = Module()
  private let hint: FeatureConnector?
  public var factor: Float = 1
  /// Factor on all terms as configured, shared by several teachers.
  private let scale: Float

  /// - Parameter share: 1 / number of teachers.
  public init(
    _ configuration: Chen2017Configuration, student: FasterRCNN, teacher: FasterRCNN,
    share: Float, _ initializer: Initializer
  ) throws {
    try configuration.check()
    self.configuration = configuration
    scale = Float(configuration.scale) * share
    hint =
      configuration.hint && configuration.gamma > 0 && scale > 0
      ? try Self.connector(configuration, student, teacher, initializer) : nil
    if let hint { connectors.child("hint", hint) }
    try checkHeads(student, teacher)
  }

  /// Factor on all terms in this step.
  private var strength: Float { scale * factor }
  private var softens: Bool { !configuration.classification.isEmpty && strength > 0 }
  private var softWeight: Float { strength * Float(1 - configuration.mu) }

  public func detectionWeight(_ loss: String) -> Float {
    let distilled =
      (loss == "loss_objectness" && configuration.rpn)
      || (loss == "loss_classifier" && configuration.rcn)
    return softens && distilled ? 1 - softWeight : 1
  }

  public func terms(_ pass: any TrainingPass, _ teacher: TeacherPass) throws -> [LossTerm] {
    guard let pass = pass as? FasterRCNNTrainingPass else {
      throw KDSError.argument("chen2017: the student has no region head")
    }
    var terms: [LossTerm] = []
    if strength == 0 { return terms }
    if configuration.rpn, needsHeads { terms += try proposalTerms(pass, teacher) }
    if configuration.rcn, needsHeads {
      let (logits, deltas) = try teacher.regionOutputs(of: pass)
      let matched = try deltas.gatherRows(pass.rcn.positiveRows)
        .gatherColumnGroups(pass.rcn.positiveClasses)
      terms += try headTerms("rcn", pass.rcn, logits, matched)
    }
    if let hint {
      let names = (hint.student.name, hint.teacher.name)
      let (studentMap, teacherMap) = try hint(
        Self.find(names.0, pass.maps), Self.find(names.1, teacher.maps))
      terms.append(
        LossTerm(
          name: "distill_hint",
          tensor: try studentMap.hint(
            teacher: teacherMap, distance: configuration.hint_distance == "l1" ? .l1 : .l2,
            reduction: configuration.hint_reduction == "mean" ? .mean : .sum),
          weight: strength * Float(configuration.gamma)))
    }
    return terms
  }

  public var report: [ConnectorReport] { hint.map { [$0.report] } ?? [] }

  // MARK: - Heads

  private var regresses: Bool { !configuration.regression.isEmpty && configuration.nu > 0 }
  private var needsHeads: Bool { (softens && softWeight > 0) || regresses }

  private func proposalTerms(
    _ pass: FasterRCNNTrainingPass, _ teacher: TeacherPass
  ) throws -> [LossTerm] {
    guard let dense = teacher.pass as? FasterRCNNDensePass else {
      throw KDSError.argument("chen2017: the teacher has no proposal network")
    }
    let output = try Tape.withoutGrad {
      let maps = try zip(dense.rpnOutput.maps, pass.rpnOutput.maps).map { other, own in
        RPNMaps(
          logits: try fit(other.logits, own.height, own.width),
          deltas: try fit(other.deltas, own.height, own.width))
      }
      return try RPNOutput(maps, classes: dense.rpnOutput.logits.shape[1])
    }
    return try headTerms(
      "rpn", pass.rpn, output.logits.gatherRows(pass.rpn.rows),
      output.deltas.gatherRows(pass.rpn.positiveRows))
  }

  /// A teacher's map on the student's grid, when the teacher sees larger images: anchors stand at the
  /// corners of cells, so the teacher's anchor at a student's cell j is that of its cell j · ratio.
  private func fit(_ map: Tensor, _ height: Int, _ width: Int) throws -> Tensor {
    if map.shape[2] == height && map.shape[3] == width { return map }
    return try map.resizedNearest(Size2(height, width))
  }

  private func headTerms(
    _ head: String, _ sample: HeadSample, _ logits: Tensor, _ deltas: Tensor
  ) throws -> [LossTerm] {
    var terms: [LossTerm] = []
    if softens && softWeight > 0 {
      // One sigmoid logit is a softmax over two.
      let own = try twoClassLogits(sample.logits)
      terms.append(
        LossTerm(
          name: "distill_\(head)_classification",
          tensor: try own.weightedSoftCrossEntropy(
            teacher: twoClassLogits(logits), classWeights: classWeights(own.shape[1]),
            temperature: Float(configuration.temperature)),
          weight: softWeight))
    }
    if regresses {
      let sum =
        configuration.regression == "bounded"
        ? try sample.deltas.teacherBoundedRegression(
          teacher: deltas, targets: sample.targets, margin: Float(configuration.margin),
          reduction: .sum)
        : try sample.deltas.squaredError(deltas, reduction: .sum)
      terms.append(
        LossTerm(
          name: "distill_\(head)_regression", tensor: try sample.normalized(sum),
          weight: strength * Float(configuration.nu)))
    }
    return terms
  }

  /// Eq. 3: w_0 for the background, 1 for every other class; nil for the plain form.
  private func classWeights(_ classes: Int) throws -> Tensor? {
    guard configuration.classification == "weighted" else { return nil }
    let weights = try Tensor(filled: 1, shape: [classes])
    weights.floats[0] = Float(configuration.background_weight)
    return weights
  }

  // MARK: - What must fit

  private static func connector(
    _ configuration: Chen2017Configuration, _ student: FasterRCNN, _ teacher: FasterRCNN,
    _ initializer: Initializer
  ) throws -> FeatureConnector {
    let names = configuration.hint_layer.split(separator: ":").map(String.init)
    func pick(_ model: FasterRCNN, _ name: String?, _ role: String) throws -> FeatureDescription {
      let all = model.source.tapDescriptions
      guard let name else { return model.source.body.tapDescriptions.last ?? all[0] }
      let wanted = [name, "backbone.\(name)", "neck.\(name)"]
      guard let found = all.first(where: { wanted.contains($0.name) }) else {
        throw KDSError.argument(
          "chen2017.hint_layer: the \(role) has no feature \"\(name)\"; it has \(all.map(\.name))")
      }
      return found
    }
    return try FeatureConnector(
      student: pick(student, names.first, "student"), teacher: pick(teacher, names.last, "teacher"),
      adaptation: configuration.adaptation, initializer)
  }

  private static func find(_ name: String, _ maps: FeatureMaps) throws -> Tensor {
    guard let found = maps.find(name) else {
      throw KDSError.runtime(
        "hint: feature \"\(name)\" was not computed; there are \(maps.taps.map(\.name))")
    }
    return found.tensor
  }

  private func checkHeads(_ student: FasterRCNN, _ teacher: FasterRCNN) throws {
    if scale == 0 || !(needsHeads) { return }
    if configuration.rcn {
      guard student.classCount == teacher.classCount else {
        throw KDSError.shape(
          "chen2017: the student has \(student.classCount) classes and the teacher \(teacher.classCount); "
            + "soft labels need the same ones (or use rcn=False)")
      }
      guard student.configuration.roi.box_std == teacher.configuration.roi.box_std else {
        throw KDSError.argument(
          "chen2017: box offsets are in different units: roi.box_std \(student.configuration.roi.box_std) "
            + "and \(teacher.configuration.roi.box_std)")
      }
    }
    if configuration.rpn { try checkAnchors(student, teacher) }
  }

  /// Anchors must cover the same part of the scene, so that offsets and scores mean the same.
  private func checkAnchors(_ student: FasterRCNN, _ teacher: FasterRCNN) throws {
    let (own, other) = (student.proposals.anchors, teacher.proposals.anchors)
    let (a, b) = (student.configuration, teacher.configuration)
    let ratio = Float(a.image_min) / Float(b.image_min)
    let longest = Float(a.image_max) / Float(b.image_max)
    func fits(_ mine: Float, _ theirs: Float) -> Bool { abs(mine - theirs * ratio) <= 0.05 * mine }
    let agree =
      own.levels.count == other.levels.count && abs(longest - ratio) <= 0.05 * ratio
      && zip(own.levels, other.levels).allSatisfy { mine, theirs in
        mine.sizes.count == theirs.sizes.count && mine.ratios == theirs.ratios
          && zip(mine.sizes, theirs.sizes).allSatisfy(fits)
      }
    guard agree else {
      throw KDSError.argument(
        "chen2017: anchors differ: student sizes \(own.levels.map(\.sizes)), ratios \(own.levels[0].ratios) at "
          + "\(a.image_min) to \(a.image_max) px; teacher sizes \(other.levels.map(\.sizes)), ratios "
          + "\(other.levels[0].ratios) at \(b.image_min) to \(b.image_max) px. Levels and ratios must be the "
          + "same, sizes in proportion to the input (student "
          + "\(other.levels.map { $0.sizes.map { $0 * ratio } })), or use rpn=False")
    }
  }
}
