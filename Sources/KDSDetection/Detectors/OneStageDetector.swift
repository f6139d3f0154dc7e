import KDSKernels
import KDSNN
import KDSTensor

/// Maps and head outputs of one batch.
public struct OneStagePass: TrainingPass {
  public let batch: PreparedBatch
  public let maps: FeatureMaps
  /// Head outputs, fine to coarse.
  public let outputs: [DenseMaps]
  public let headTaps: [NamedTensor]
  /// Empty outside training.
  public var losses: [NamedTensor] = []
  /// (N·M) what the assigner made of every anchor: its class, -1 background, -2 does not count; nil
  /// outside training.
  public var labels: Tensor?
  public var regionTaps: [NamedTensor] { labels.map { [("head.labels", $0)] } ?? [] }
}

/// A detector that says something about every place of a pyramid, and is done: RetinaNet, FCOS, ATSS, GFL.
///
/// Parts: `backbone`, `head`. What distinguishes them is the head.
public class OneStageDetector: Module, Detector {
  public let common: any DetectorConfiguration
  public let source: any FeatureSource
  public let anchors: PyramidAnchors
  public let head: DenseHead
  /// Whether passes keep what the ReLUs of the head's towers get, for their taps.
  private var keepsTowers = false

  init<Head>(
    _ configuration: OneStageConfiguration<Head>, seed: UInt64,
    _ makeHead: (Head, DenseHead.Place, Initializer) throws -> DenseHead
  ) throws {
    try configuration.checkCommon()
    let initializer = Initializer(seed: seed)
    common = configuration
    source = try makeFeatureSource(configuration.backbone, configuration.neck, initializer)
    let levels = source.levelDescriptions
    anchors = try PyramidAnchors(
      sizes: configuration.anchor_sizes, ratios: configuration.anchor_ratios,
      strides: levels.map(\.stride), strideRule: configuration.anchor_strides)
    let place = DenseHead.Place(
      channels: levels[0].channels, anchorsPerCell: anchors.count,
      classes: configuration.num_classes, levels: levels.count)
    head = try makeHead(configuration.head, place, initializer)
    super.init()
    child("backbone", source as Module)
    child("head", head)
  }

  /// Towers of all levels first, then the outputs.
  public var headTaps: [TapDescription] {
    let levels = source.levelDescriptions
    return [true, false].flatMap { towers in
      levels.flatMap {
        head.tapDescriptions($0, suffix: levelSuffix($0.name, of: levels.count), towers: towers)
      }
    }
  }

  fileprivate func keepingTowers<Result>(_ body: () throws -> Result) rethrows -> Result {
    let before = keepsTowers
    keepsTowers = true
    defer { keepsTowers = before }
    return try body()
  }

  public func anchorGrids(input: Size2) throws -> [(level: String, boxes: [Float])] {
    try anchors.named(source, input: input)
  }

  /// The rest of the head from inside a tower; see `DenseHead.resumed`. `level` counts from the finest.
  public func resumedHead(
    _ features: Tensor, branch: String, after start: Int, level: Int
  ) throws -> [NamedTensor] {
    let levels = source.levelDescriptions
    guard levels.indices.contains(level) else {
      throw KDSError.argument("head_from: there is no level \(level) of \(levels.count)")
    }
    guard features.rank == 4, features.dtype == .float32, features.count > 0,
      features.shape[1] == levels[level].channels
    else {
      throw KDSError.shape(
        "head_from: features of level \(level) must be a non-empty (N, \(levels[level].channels), "
          + "H, W), got \(features.shape)")
    }
    return try head.resumed(features, branch: branch, after: start, level: level)
  }

  // MARK: - Passes

  public func densePass(_ batch: PreparedBatch) throws -> any DensePass { try dense(batch) }

  /// `densePass` with its own type.
  public func dense(_ batch: PreparedBatch) throws -> OneStagePass {
    let maps = try source.maps(batch.images)
    let outputs = try maps.levels.enumerated().map {
      try head($1.tensor, level: $0, towers: keepsTowers)
    }
    let suffixes = maps.levels.map { levelSuffix($0.name, of: outputs.count) }
    let towers = zip(outputs, suffixes).flatMap { output, suffix in
      output.towers.map { ("head." + $0.name + suffix, $0.tensor) }
    }
    return OneStagePass(
      batch: batch, maps: maps, outputs: outputs,
      headTaps: towers + zip(outputs, suffixes).flatMap { head.taps($0, suffix: $1) })
  }

  public func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> any TrainingPass {
    try source.drawing(from: seed) { try training(batch) }
  }

  /// `trainingPass` with its own type; nothing of its own is drawn, so it needs no seed.
  public func training(_ batch: PreparedBatch) throws -> OneStagePass {
    try common.checkLabels(batch)
    var pass = try dense(batch)
    let targets = try head.targets(grid(pass), batch)
    pass.labels = targets.labels
    pass.losses = try head.losses(pass.outputs, targets)
    return pass
  }

  public func detect(
    _ batch: PreparedBatch, _ options: PredictionOptions
  ) throws -> [[Detection]] {
    try Tape.withoutGrad {
      let pass = try dense(batch)
      return try DensePostprocessing(head, options).detections(
        pass.outputs, grid: grid(pass), batch: batch)
    }
  }

  private func grid(_ pass: OneStagePass) -> DenseGrid {
    anchors.grid(maps: pass.outputs.map(\.size), input: pass.batch.inputSize)
  }
}

extension Detector {
  /// Runs `body` while passes have the taps of one-stage heads' towers, "head.classification.conv0.p3"
  /// and so on: what each ReLU there gets. Without them convolution and ReLU are one.
  public func withTowerTaps<Result>(
    _ wanted: Bool, _ body: () throws -> Result
  ) rethrows -> Result {
    guard wanted, let dense = self as? OneStageDetector else { return try body() }
    return try dense.keepingTowers(body)
  }
}
