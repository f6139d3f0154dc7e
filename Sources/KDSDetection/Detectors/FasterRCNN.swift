import KDSKernels
import KDSNN
import KDSTensor

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
    [("roi.class_logits", classLogits), ("roi.box_deltas", boxDeltas), ("roi.regions", rois)]
  }
}

/// Faster R-CNN (Ren et al. 2015), approximate joint training, on one map as published or on a feature
/// pyramid (Lin et al. 2017); with a mask branch it is Mask R-CNN (He et al. 2017).
///
/// Parts: `backbone`, `rpn.head`, `roi_heads`. Parameter and loss names are torchvision's.
public final class FasterRCNN: Module, TwoStageDetector {
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
    (proposals, rpnHead) = try makeProposals(configuration, source, initializer)
    regionSampler = RegionSampler(configuration: configuration.roi)
    let sizes = roiHeadSizes(configuration, source)
    roiHead = try RoIHead(sizes: sizes, configuration: configuration.roi, initializer)
    let head = roiHead
    maskBranch = try configuration.mask.map { try MaskBranch($0, sizes, in: head, initializer) }
    super.init()
    child("backbone", source as Module)
    child("rpn", Module()).child("head", rpnHead)
    child("roi_heads", roiHead)
  }

  public var hasMasks: Bool { maskBranch != nil }

  // MARK: - Passes

  public func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> any TrainingPass {
    try training(batch, seed: seed)
  }

  /// `trainingPass` with its own type.
  public func training(_ batch: PreparedBatch, seed: UInt64) throws -> FasterRCNNTrainingPass {
    try configuration.checkLabels(batch)
    let pass = try source.drawing(from: seed) { try dense(batch) }
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
    try proposalLosses(rpn) + [
      ("loss_classifier", try rcn.classificationLoss()),
      ("loss_box_reg", try rcn.regressionLoss(beta: configuration.roi.smooth_l1_beta)),
    ]
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
