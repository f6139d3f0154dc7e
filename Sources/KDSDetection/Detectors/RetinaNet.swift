import KDSKernels
import KDSNN
import KDSTensor

/// Maps and head outputs of one batch.
public struct RetinaNetPass: TrainingPass {
  public let batch: PreparedBatch
  public let maps: FeatureMaps
  /// Head outputs, fine to coarse.
  public let outputs: [DenseMaps]
  /// Empty outside training.
  public var losses: [NamedTensor] = []

  public var headTaps: [NamedTensor] {
    zip(outputs, maps.levels).flatMap { output, level -> [NamedTensor] in
      let suffix = levelSuffix(level.name, of: outputs.count)
      return [
        ("head.class_logits" + suffix, output.logits), ("head.box_deltas" + suffix, output.boxes),
      ]
    }
  }
}

/// RetinaNet (Lin, Goyal, Girshick, He, Dollár, ICCV 2017): one stage, focal loss over all anchors.
///
/// Parts: `backbone`, `head`. Parameter and loss names are torchvision's.
public final class RetinaNet: Module, Detector {
  public let configuration: RetinaNetConfiguration
  public let source: any FeatureSource
  public let anchors: PyramidAnchors
  public let head: RetinaHead

  public convenience init(_ configuration: RetinaNetConfiguration, seed: UInt64) throws {
    let initializer = Initializer(seed: seed)
    try self.init(
      configuration,
      source: makeFeatureSource(configuration.backbone, configuration.neck, initializer),
      initializer)
  }

  public init(
    _ configuration: RetinaNetConfiguration, source: any FeatureSource, _ initializer: Initializer
  ) throws {
    try configuration.checkCommon()
    self.configuration = configuration
    self.source = source
    let levels = source.levelDescriptions
    anchors = try PyramidAnchors(
      sizes: configuration.anchor_sizes, ratios: configuration.anchor_ratios,
      strides: levels.map(\.stride), strideRule: configuration.anchor_strides)
    head = try RetinaHead(
      configuration.head, channels: levels[0].channels, anchorsPerCell: anchors.count,
      classes: configuration.num_classes, initializer)
    super.init()
    child("backbone", source as Module)
    child("head", head)
  }

  public var common: any DetectorConfiguration { configuration }

  public var headTaps: [TapDescription] {
    let levels = source.levelDescriptions
    return levels.flatMap { level in
      let suffix = levelSuffix(level.name, of: levels.count)
      return [
        TapDescription(
          name: "head.class_logits" + suffix, channels: head.classes * anchors.count,
          stride: level.stride, kind: "class_logits"),
        TapDescription(
          name: "head.box_deltas" + suffix, channels: 4 * anchors.count, stride: level.stride,
          kind: "box_deltas"),
      ]
    }
  }

  // MARK: - Passes

  public func densePass(_ batch: PreparedBatch) throws -> any DensePass { try dense(batch) }

  /// `densePass` with its own type.
  public func dense(_ batch: PreparedBatch) throws -> RetinaNetPass {
    let maps = try source.maps(batch.images)
    return RetinaNetPass(
      batch: batch, maps: maps, outputs: try maps.levels.map { try head($0.tensor) })
  }

  public func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> any TrainingPass {
    try source.drawing(from: seed) { try training(batch) }
  }

  /// `trainingPass` with its own type; nothing of its own is drawn, so it needs no seed.
  public func training(_ batch: PreparedBatch) throws -> RetinaNetPass {
    try configuration.checkLabels(batch)
    var pass = try dense(batch)
    let targets = try RetinaAssigner(configuration.head).assign(
      grids(pass).flatMap { $0 }, batch: batch)
    pass.losses = try head.losses(pass.outputs, targets)
    return pass
  }

  public func detect(
    _ batch: PreparedBatch, _ options: PredictionOptions
  ) throws -> [[Detection]] {
    try Tape.withoutGrad {
      let pass = try dense(batch)
      return try DensePostprocessing(configuration.head, options).detections(
        pass.outputs, grids: grids(pass), classes: head.classes, batch: batch)
    }
  }

  private func grids(_ pass: RetinaNetPass) -> [[Float]] {
    pass.outputs.enumerated().map {
      anchors.grid(level: $0, map: $1.size, input: pass.batch.inputSize)
    }
  }
}
