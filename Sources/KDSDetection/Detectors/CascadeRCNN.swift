import KDSKernels
import KDSNN
import KDSTensor

/// What one training pass of a detector of regions computed, without what Chen's terms need.
public struct TwoStageTrainingPass: TrainingPass {
  public let dense: FasterRCNNDensePass
  /// (R, 5) the regions that were sampled first, in input pixels.
  public let rois: Tensor
  public let losses: [NamedTensor]

  public var batch: PreparedBatch { dense.batch }
  public var maps: FeatureMaps { dense.maps }
  public var headTaps: [NamedTensor] { dense.headTaps }
  public var regionTaps: [NamedTensor] { [("roi.regions", rois)] }
}

/// Cascade R-CNN (Cai & Vasconcelos 2018), with masks Cascade Mask R-CNN: several region heads, each
/// trained on the boxes that the one before has moved, with a higher IoU for positives.
///
/// Boxes are shared by all classes. At inference the stages' class probabilities are averaged, the last
/// stage gives the boxes; every stage's mask branch sees those, and their probabilities are averaged.
/// Parts: `backbone`, `rpn.head`, `roi_heads.stages.0.box_head`, …; losses "loss_classifier_0", ….
public final class CascadeRCNN: Module, TwoStageDetector {
  /// One region head with its own positives and box code.
  private struct Stage {
    let head: RoIHead
    let mask: MaskBranch?
    let sampler: RegionSampler
    let weight: Float
    var configuration: RoIConfiguration { sampler.configuration }
  }

  public let configuration: FasterRCNNConfiguration
  public let proposals: RegionProposals
  public let source: any FeatureSource
  public let rpnHead: RPNHead
  private var stages: [Stage] = []

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
    guard let cascade = configuration.cascade else {
      throw KDSError.argument("cascade: \(configuration.detector) has no stages")
    }
    self.configuration = configuration
    self.source = source
    (proposals, rpnHead) = try makeProposals(configuration, source, initializer)
    super.init()
    child("backbone", source as Module)
    child("rpn", Module()).child("head", rpnHead)
    let list = child("roi_heads", Module()).child("stages", Module())
    for index in cascade.ious.indices {
      let stage = try makeStage(index, cascade, initializer)
      list.child("\(index)", stage.head)
      stages.append(stage)
    }
  }

  private func makeStage(
    _ index: Int, _ cascade: CascadeConfiguration, _ initializer: Initializer
  ) throws -> Stage {
    var roi = configuration.roi
    (roi.positive_iou, roi.box_std) = (cascade.ious[index], cascade.box_stds[index])
    var sizes = roiHeadSizes(configuration, source)
    sizes.sharesBoxes = true
    let head = try RoIHead(sizes: sizes, configuration: roi, initializer)
    let mask = try configuration.mask.map { try MaskBranch($0, sizes, in: head, initializer) }
    return Stage(
      head: head, mask: mask, sampler: RegionSampler(configuration: roi, stage: index),
      weight: cascade.loss_weights[index])
  }

  public var hasMasks: Bool { configuration.mask != nil }

  // MARK: - Training

  public func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> any TrainingPass {
    try configuration.checkLabels(batch)
    let pass = try source.drawing(from: seed) { try dense(batch) }
    let levels = pass.maps.levels.map(\.tensor)
    var losses = try proposalLosses(
      proposals.sample(pass.rpnOutput, batch: batch, seed: seed))
    var boxes = try proposals.proposals(
      pass.rpnOutput, sizes: batch.sizes, input: batch.inputSize, training: true)
    var first: Tensor?
    for (index, stage) in stages.enumerated() {
      let regions = try stage.sampler.draw(proposals: boxes, batch: batch, seed: seed)
      first = first ?? regions.rois
      let (logits, deltas) = try stage.head(
        levels, regions.rois, dropoutSeed: seed &+ UInt64(index))
      let sample = try sharedBoxSample(regions, logits, deltas)
      var own: [NamedTensor] = [
        ("loss_classifier", try sample.classificationLoss()),
        ("loss_box_reg", try sample.regressionLoss(beta: stage.configuration.smooth_l1_beta)),
      ]
      if let mask = stage.mask {
        own.append(("loss_mask", try mask.loss(levels, regions, batch: batch)))
      }
      losses += try own.map {
        ("\($0.name)_\(index)", try $0.tensor.multiplied(by: stage.weight))
      }
      // The truth joins every stage's regions anew.
      boxes = refined(stage, regions.rois, deltas, batch) { !regions.isTruth[$0] }
    }
    let rois = try first ?? regions([])
    return TwoStageTrainingPass(dense: pass, rois: rois, losses: losses)
  }

  /// Regions after a stage has moved them, per image, within the images; no gradient passes.
  private func refined(
    _ stage: Stage, _ rois: Tensor, _ deltas: Tensor, _ batch: PreparedBatch,
    keeping keeps: (Int) -> Bool = { _ in true }
  ) -> [[Float]] {
    let rows = rois.shape[0]
    var corners = [Float](repeating: 0, count: 4 * max(1, rows))
    for index in 0..<4 * rows { corners[index] = rois.floats[index / 4 * 5 + 1 + index % 4] }
    var boxes = corners
    Kernels.decodeBoxes(
      deltas.floats, anchors: corners, &boxes, rows, weights: stage.sampler.boxWeights)
    var result = [[Float]](repeating: [], count: batch.sizes.count)
    for row in 0..<rows where keeps(row) {
      result[Int(rois.floats[5 * row])] += boxes[4 * row..<4 * row + 4]
    }
    for (image, size) in batch.sizes.enumerated() where !result[image].isEmpty {
      Kernels.clipBoxes(
        &result[image], result[image].count / 4, width: Float(size.width),
        height: Float(size.height))
    }
    return result
  }

  // MARK: - Inference

  public func detect(
    _ batch: PreparedBatch, _ options: PredictionOptions
  ) throws -> [[Detection]] {
    try Tape.withoutGrad {
      let pass = try dense(batch)
      let levels = pass.maps.levels.map(\.tensor)
      let boxes = try proposals.proposals(
        pass.rpnOutput, sizes: batch.sizes, input: batch.inputSize, training: false)
      var rois = try regions(boxes)
      var (deltas, scores) = (rois, [Tensor]())
      for (index, stage) in stages.enumerated() {
        if index > 0 { rois = try regions(refined(stages[index - 1], rois, deltas, batch)) }
        let outputs = try stage.head(levels, rois)
        deltas = outputs.deltas
        scores.append(try RoIPostprocessing.probabilities(outputs.logits))
      }
      let finish = RoIPostprocessing(
        configuration: stages[stages.count - 1].configuration, options: options)
      var found = try finish.inInput(
        scores: mean(scores), deltas: deltas, rois: rois, counts: boxes.map { $0.count / 4 },
        batch: batch)
      let masks = try stages.compactMap { try $0.mask?.probabilities(levels, found) }
      if !masks.isEmpty { addMasks(try mean(masks), to: &found) }
      return RoIPostprocessing.inOriginals(found, batch)
    }
  }

  private func mean(_ parts: [Tensor]) throws -> Tensor {
    try parts.dropFirst().reduce(parts[0]) { try $0.adding($1) }.divided(by: Float(parts.count))
  }
}

/// The mini-batch of a head whose boxes (R, 4) are shared by all classes.
func sharedBoxSample(
  _ regions: SampledRegions, _ logits: Tensor, _ deltas: Tensor
) throws -> HeadSample {
  HeadSample(
    logits: logits, labels: try Tensor(regions.labels, shape: [regions.labels.count]),
    deltas: try deltas.gatherRows(regions.positives),
    targets: try Tensor(regions.targets, shape: [regions.positives.count, 4]),
    rows: Array(0..<regions.labels.count), positiveRows: regions.positives,
    positiveClasses: regions.positives.map { _ in 0 })
}
