import KDSKernels
import KDSNN
import KDSTensor

extension FasterRCNNConfiguration {
  /// R-FCN (Dai et al. 2016) on the backbone's last map.
  public static var fullyConvolutional: FasterRCNNConfiguration {
    var all = FasterRCNNConfiguration()
    (all.detector, all.rfcn) = ("rfcn", RFCNConfiguration())
    return all
  }
}

/// R-FCN (Dai et al. 2016): proposals as in Faster R-CNN, regions that vote with position-sensitive maps.
///
/// Parts: `backbone`, `rpn.head`, `roi_heads` (`RFCNHead`). Losses as Faster R-CNN's.
public final class RFCN: Module, TwoStageDetector {
  public let configuration: FasterRCNNConfiguration
  public let proposals: RegionProposals
  public let source: any FeatureSource
  public let rpnHead: RPNHead
  public let head: RFCNHead
  private let sampler: RegionSampler

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
    guard let own = configuration.rfcn, source.levelDescriptions.count == 1 else {
      throw KDSError.argument("rfcn: reads the backbone's last map and takes no neck")
    }
    guard configuration.roi.box_std.count == 4, configuration.roi.box_std.allSatisfy({ $0 > 0 })
    else {
      throw KDSError.argument(
        "roi.box_std: \(configuration.roi.box_std) must be 4 positive numbers")
    }
    self.configuration = configuration
    self.source = source
    (proposals, rpnHead) = try makeProposals(configuration, source, initializer)
    sampler = RegionSampler(configuration: configuration.roi)
    let map = source.levelDescriptions[0]
    head = try RFCNHead(
      own, inChannels: map.channels, stride: map.stride, classes: configuration.num_classes,
      width: configuration.backbone.width, initializer)
    super.init()
    child("backbone", source as Module)
    child("rpn", Module()).child("head", rpnHead)
    child("roi_heads", head)
  }

  public func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> any TrainingPass {
    try configuration.checkLabels(batch)
    let pass = try source.drawing(from: seed) { try dense(batch) }
    let rpn = try proposals.sample(pass.rpnOutput, batch: batch, seed: seed)
    let boxes = try proposals.proposals(
      pass.rpnOutput, sizes: batch.sizes, input: batch.inputSize, training: true)
    let regions = try sampler.draw(proposals: boxes, batch: batch, seed: seed)
    let (logits, deltas) = try head(pass.maps.levels[0].tensor, regions.rois)
    let sample = try sharedBoxSample(regions, logits, deltas)
    let own: [NamedTensor] = [
      ("loss_classifier", try sample.classificationLoss()),
      ("loss_box_reg", try sample.regressionLoss(beta: configuration.roi.smooth_l1_beta)),
    ]
    return TwoStageTrainingPass(
      dense: pass, rois: regions.rois, losses: try proposalLosses(rpn) + own)
  }

  public func detect(
    _ batch: PreparedBatch, _ options: PredictionOptions
  ) throws -> [[Detection]] {
    try Tape.withoutGrad {
      let pass = try dense(batch)
      let boxes = try proposals.proposals(
        pass.rpnOutput, sizes: batch.sizes, input: batch.inputSize, training: false)
      let rois = try regions(boxes)
      let (logits, deltas) = try head(pass.maps.levels[0].tensor, rois)
      return try RoIPostprocessing(configuration: configuration.roi, options: options).detections(
        logits: logits, deltas: deltas, rois: rois, counts: boxes.map { $0.count / 4 }, batch: batch
      )
    }
  }
}
