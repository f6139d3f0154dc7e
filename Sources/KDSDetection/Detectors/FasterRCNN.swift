import KDSKernels
import KDSNN
import KDSTensor

/// Maps and proposal outputs of one batch.
public struct FasterRCNNDensePass: DensePass {
  public let batch: PreparedBatch
  public let maps: FeatureMaps
  public let rpnOutput: RPNOutput
  public var headTaps: [NamedTensor] { rpnTaps(rpnOutput, maps.levels) }
}

/// Everything that one training pass computed: losses are made from it, and so are distillation terms.
public struct FasterRCNNTrainingPass: TrainingPass {
  public let batch: PreparedBatch
  public let maps: FeatureMaps
  public let rpnOutput: RPNOutput
  /// The proposal network's mini-batch.
  public let rpn: HeadSample
  /// (R, 5) sampled regions in input pixels.
  public let rois: Tensor
  /// (R, K) and (R, 4K), on the tape.
  public let classLogits, boxDeltas: Tensor
  /// The region head's mini-batch.
  public let rcn: HeadSample
  public let losses: [NamedTensor]

  public var headTaps: [NamedTensor] { rpnTaps(rpnOutput, maps.levels) }
  public var regionTaps: [NamedTensor] {
    [("roi.class_logits", classLogits), ("roi.box_deltas", boxDeltas)]
  }
}

/// "rpn.objectness" and "rpn.box_deltas", with the level's name behind where there are several.
private func rpnTaps(_ output: RPNOutput, _ levels: [Feature]) -> [NamedTensor] {
  zip(output.maps, levels).flatMap { maps, level -> [NamedTensor] in
    let suffix = levelSuffix(level.name, of: levels.count)
    return [("rpn.objectness" + suffix, maps.logits), ("rpn.box_deltas" + suffix, maps.deltas)]
  }
}

/// ".p3" for "neck.p3" among several levels, nothing for the only one.
func levelSuffix(_ name: String, of count: Int) -> String {
  count == 1 ? "" : "." + (name.split(separator: ".").last.map(String.init) ?? name)
}

/// Faster R-CNN (Ren et al. 2015), approximate joint training, on one map as published or on a feature
/// pyramid (Lin et al. 2017); with a mask branch it is Mask R-CNN (He et al. 2017).
///
/// Parts: `backbone`, `rpn.head`, `roi_heads`. Parameter and loss names are torchvision's.
public final class FasterRCNN: Module, Detector {
  public let configuration: FasterRCNNConfiguration
  public let proposals: RegionProposals
  public let source: any FeatureSource
  public let rpnHead: RPNHead
  public let roiHead: RoIHead
  public let maskBranch: MaskBranch?
  private let regionSampler: RegionSampler

  public convenience init(_ configuration: FasterRCNNConfiguration, seed: UInt64) throws {
    let initializer = Initializer(seed: seed)
    try self.init(
      configuration,
      source: makeFeatureSource(configuration.backbone, configuration.neck, initializer),
      initializer)
  }

  public init(
    _ configuration: FasterRCNNConfiguration, source: any FeatureSource, _ initializer: Initializer
  ) throws {
    try configuration.check()
    self.configuration = configuration
    self.source = source
    let levels = source.levelDescriptions
    let anchors = try PyramidAnchors(
      sizes: configuration.anchor_sizes, ratios: configuration.anchor_ratios,
      strides: levels.map(\.stride), strideRule: configuration.anchor_strides)
    proposals = RegionProposals(anchors: anchors, configuration: configuration.rpn)
    regionSampler = RegionSampler(configuration: configuration.roi)
    rpnHead = try Self.makeRPNHead(configuration, source, anchors, initializer)
    roiHead = try RoIHead(
      sizes: Self.headSizes(configuration, source), configuration: configuration.roi, initializer)
    let pooled = levels.prefix(source.pooledLevels)
    let (head, classes) = (roiHead, configuration.num_classes)
    maskBranch = try configuration.mask.map {
      try MaskBranch(
        $0, channels: pooled[0].channels, strides: pooled.map(\.stride), classes: classes,
        in: head, initializer)
    }
    super.init()
    child("backbone", source as Module)
    child("rpn", Module()).child("head", rpnHead)
    child("roi_heads", roiHead)
  }

  private static func makeRPNHead(
    _ configuration: FasterRCNNConfiguration, _ source: any FeatureSource,
    _ anchors: PyramidAnchors, _ initializer: Initializer
  ) throws -> RPNHead {
    let (rpn, inputs) = (configuration.rpn, source.levelDescriptions[0].channels)
    let usual = configuration.neck.kind == "none" ? source.body.headDefaults.rpnChannels : inputs
    return try RPNHead(
      inChannels: inputs, channels: rpn.channels > 0 ? rpn.channels : usual,
      anchorsPerCell: anchors.count, classes: rpn.objectness == "sigmoid" ? 1 : 2, depth: rpn.convs,
      initializer)
  }

  private static func headSizes(
    _ configuration: FasterRCNNConfiguration, _ source: any FeatureSource
  ) -> RoIHeadSizes {
    let (roi, defaults) = (configuration.roi, source.body.headDefaults)
    let levels = source.levelDescriptions.prefix(source.pooledLevels)
    return RoIHeadSizes(
      channels: levels[0].channels, poolSize: roi.pool_size > 0 ? roi.pool_size : defaults.poolSize,
      classes: configuration.num_classes, strides: levels.map(\.stride),
      hidden: roi.hidden.isEmpty ? defaults.hidden : roi.hidden,
      dropout: roi.dropout >= 0 ? roi.dropout : defaults.dropout)
  }

  public var backbone: Backbone { source.body }
  public var common: any DetectorConfiguration { configuration }
  public var hasMasks: Bool { maskBranch != nil }

  // MARK: - Passes

  public func densePass(_ batch: PreparedBatch) throws -> any DensePass { try dense(batch) }

  /// `densePass` with its own type.
  public func dense(_ batch: PreparedBatch) throws -> FasterRCNNDensePass {
    let maps = try source.maps(batch.images)
    return FasterRCNNDensePass(
      batch: batch, maps: maps, rpnOutput: try rpnHead(maps.levels.map(\.tensor)))
  }

  public func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> any TrainingPass {
    try training(batch, seed: seed)
  }

  /// `trainingPass` with its own type.
  public func training(_ batch: PreparedBatch, seed: UInt64) throws -> FasterRCNNTrainingPass {
    try configuration.checkLabels(batch)
    let pass = try dense(batch)
    let output = pass.rpnOutput
    let rpn = try proposals.sample(output, batch: batch, seed: seed)
    let boxes = try proposals.proposals(
      output, sizes: batch.sizes, input: batch.inputSize, training: true)
    let regions = try regionSampler.draw(proposals: boxes, batch: batch, seed: seed)
    let (logits, deltas) = try roiHead(
      pass.maps.levels.map(\.tensor), regions.rois, dropoutSeed: seed)
    let rcn = try headSample(regions, logits, deltas)
    var losses = try losses(rpn, rcn)
    if let maskBranch {
      let levels = pass.maps.levels.map(\.tensor)
      losses.append(("loss_mask", try maskBranch.loss(levels, regions, batch: batch)))
    }
    return FasterRCNNTrainingPass(
      batch: batch, maps: pass.maps, rpnOutput: output, rpn: rpn, rois: regions.rois,
      classLogits: logits, boxDeltas: deltas, rcn: rcn, losses: losses)
  }

  private func headSample(
    _ regions: SampledRegions, _ logits: Tensor, _ deltas: Tensor
  ) throws -> HeadSample {
    let classes = regions.positives.map { Int(regions.labels[$0]) }
    return HeadSample(
      logits: logits, labels: try Tensor(regions.labels, shape: [regions.labels.count]),
      deltas: try deltas.gatherRows(regions.positives).gatherColumnGroups(classes),
      targets: try Tensor(regions.targets, shape: [regions.positives.count, 4]),
      rows: Array(0..<regions.labels.count), positiveRows: regions.positives,
      positiveClasses: classes)
  }

  /// The four losses: means over the sampled anchors and regions.
  private func losses(_ rpn: HeadSample, _ rcn: HeadSample) throws -> [NamedTensor] {
    [
      ("loss_objectness", try rpn.classificationLoss()),
      ("loss_rpn_box_reg", try rpn.regressionLoss(beta: configuration.rpn.smooth_l1_beta)),
      ("loss_classifier", try rcn.classificationLoss()),
      ("loss_box_reg", try rcn.regressionLoss(beta: configuration.roi.smooth_l1_beta)),
    ]
  }

  public var headTaps: [TapDescription] {
    let (levels, anchors) = (source.levelDescriptions, proposals.anchors.count)
    return levels.flatMap { level in
      let suffix = levelSuffix(level.name, of: levels.count)
      return [
        TapDescription(
          name: "rpn.objectness" + suffix, channels: rpnHead.classes * anchors,
          stride: level.stride, kind: "class_logits"),
        TapDescription(
          name: "rpn.box_deltas" + suffix, channels: 4 * anchors, stride: level.stride,
          kind: "box_deltas"),
      ]
    }
  }

  // MARK: - Inference

  public func detect(
    _ batch: PreparedBatch, _ options: PredictionOptions
  ) throws -> [[Detection]] {
    try Tape.withoutGrad {
      let pass = try dense(batch)
      let boxes = try proposals.proposals(
        pass.rpnOutput, sizes: batch.sizes, input: batch.inputSize, training: false)
      let rois = try regions(boxes)
      let (logits, deltas) = try roiHead(pass.maps.levels.map(\.tensor), rois)
      let finish = RoIPostprocessing(configuration: configuration.roi, options: options)
      var found = try finish.inInput(
        logits: logits, deltas: deltas, rois: rois, counts: boxes.map { $0.count / 4 }, batch: batch
      )
      if let maskBranch {
        let levels = pass.maps.levels.map(\.tensor)
        addMasks(try maskBranch.probabilities(levels, found), to: &found)
      }
      return RoIPostprocessing.inOriginals(found, batch)
    }
  }
}

/// Gives each detection its row of probabilities (R, side²).
func addMasks(_ probabilities: Tensor?, to found: inout [[Detection]]) {
  guard let probabilities else { return }
  let area = probabilities.shape[1]
  var row = 0
  for image in found.indices {
    for index in found[image].indices {
      found[image][index].mask = Array(
        UnsafeBufferPointer(start: probabilities.floats + row * area, count: area))
      row += 1
    }
  }
}

/// (R, 5) from boxes per image.
func regions(_ boxes: [[Float]]) throws -> Tensor {
  var values: [Float] = []
  for (image, list) in boxes.enumerated() {
    for box in 0..<list.count / 4 {
      values.append(Float(image))
      values += list[4 * box..<4 * box + 4]
    }
  }
  return try Tensor(values, shape: [values.count / 5, 5])
}
