import KDSKernels
import KDSNN
import KDSTensor

/// Everything that one training pass computed: losses are made from it, and so are distillation terms.
public struct FasterRCNNTrainingPass {
  public let batch: PreparedBatch
  public let features: [Feature]
  public let rpnOutput: RPNOutput
  /// The proposal network's mini-batch.
  public let rpn: HeadSample
  /// (R, 5) sampled regions in input pixels.
  public let rois: Tensor
  /// (R, K) and (R, 4K), on the tape.
  public let classLogits, boxDeltas: Tensor
  /// The region head's mini-batch.
  public let rcn: HeadSample
}

/// Faster R-CNN with one feature map, as published (Ren et al. 2015), approximate joint training.
///
/// Parts: `backbone`, `rpn.head`, `roi_heads`. Losses carry torchvision's names.
public final class FasterRCNN: Module, Detector {
  public let configuration: FasterRCNNConfiguration
  public let proposals: RegionProposals
  public let stride: Int
  private let regionSampler: RegionSampler

  public convenience init(_ configuration: FasterRCNNConfiguration, seed: UInt64) throws {
    let initializer = Initializer(seed: seed)
    try self.init(
      configuration, backbone: makeBackbone(configuration.backbone, initializer), initializer)
  }

  public init(
    _ configuration: FasterRCNNConfiguration, backbone: Backbone, _ initializer: Initializer
  ) throws {
    try Self.check(configuration)
    guard let last = backbone.descriptions.last else {
      throw KDSError.argument("faster_rcnn: backbone \(configuration.backbone.name) has no feature")
    }
    self.configuration = configuration
    stride = last.stride
    let anchors = try AnchorGenerator(
      sizes: configuration.anchor_sizes, ratios: configuration.anchor_ratios)
    proposals = RegionProposals(anchors: anchors, configuration: configuration.rpn)
    regionSampler = RegionSampler(configuration: configuration.roi)
    super.init()
    let defaults = backbone.headDefaults
    let (rpn, roi) = (configuration.rpn, configuration.roi)
    child("backbone", backbone)
    let network = child("rpn", Module())
    network.child(
      "head",
      try RPNHead(
        inChannels: last.channels, channels: rpn.channels > 0 ? rpn.channels : defaults.rpnChannels,
        anchorsPerCell: anchors.count, initializer))
    let sizes = RoIHeadSizes(
      channels: last.channels, stride: last.stride,
      poolSize: roi.pool_size > 0 ? roi.pool_size : defaults.poolSize,
      classes: configuration.num_classes, hidden: roi.hidden.isEmpty ? defaults.hidden : roi.hidden,
      dropout: roi.dropout >= 0 ? roi.dropout : defaults.dropout)
    child("roi_heads", try RoIHead(sizes: sizes, configuration: roi, initializer))
  }

  // MARK: - Parts

  public var backbone: Backbone { childModule("backbone") as! Backbone }
  public var rpnHead: RPNHead { childModule("rpn")!.childModule("head") as! RPNHead }
  public var roiHead: RoIHead { childModule("roi_heads") as! RoIHead }
  public var classCount: Int { configuration.num_classes }

  public func configurationText() throws -> String { try StrictJSON.encode(configuration) }

  public func prepare(_ batch: RawBatch) throws -> PreparedBatch {
    try ImagePreparation(configuration).prepare(batch)
  }

  // MARK: - Training

  /// Forward pass of a training step. `seed` draws anchors, regions and dropout.
  public func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> FasterRCNNTrainingPass {
    try checkLabels(batch)
    let features = try backbone.features(batch.images)
    let map = features[features.count - 1].tensor
    let output = try rpnHead(map)
    let rpn = try proposals.sample(output, batch: batch, stride: stride, seed: seed)
    let boxes = try proposals.proposals(
      output, sizes: batch.sizes, stride: stride, training: true)
    let regions = try regionSampler.draw(proposals: boxes, batch: batch, seed: seed)
    let (logits, deltas) = try roiHead(map, regions.rois, dropoutSeed: seed)
    let classes = regions.positives.map { Int(regions.labels[$0]) }
    let rcn = HeadSample(
      logits: logits, labels: try Tensor(regions.labels, shape: [regions.labels.count]),
      deltas: try deltas.gatherRows(regions.positives).gatherColumnGroups(classes),
      targets: try Tensor(regions.targets, shape: [regions.positives.count, 4]),
      rows: Array(0..<regions.labels.count), positiveRows: regions.positives,
      positiveClasses: classes)
    return FasterRCNNTrainingPass(
      batch: batch, features: features, rpnOutput: output, rpn: rpn, rois: regions.rois,
      classLogits: logits, boxDeltas: deltas, rcn: rcn)
  }

  /// The four losses of a pass: means over the sampled anchors and regions.
  public func losses(_ pass: FasterRCNNTrainingPass) throws -> [(name: String, tensor: Tensor)] {
    [
      ("loss_objectness", try pass.rpn.classificationLoss()),
      ("loss_rpn_box_reg", try pass.rpn.regressionLoss(beta: configuration.rpn.smooth_l1_beta)),
      ("loss_classifier", try pass.rcn.classificationLoss()),
      ("loss_box_reg", try pass.rcn.regressionLoss(beta: configuration.roi.smooth_l1_beta)),
    ]
  }

  public func losses(
    _ batch: PreparedBatch, seed: UInt64
  ) throws -> [(name: String, tensor: Tensor)] {
    try losses(trainingPass(batch, seed: seed))
  }

  // MARK: - Taps

  public var taps: [TapDescription] {
    let features = backbone.descriptions.map {
      TapDescription(
        name: "backbone.\($0.name)", channels: $0.channels, stride: $0.stride, kind: "feature")
    }
    let anchors = proposals.anchors.count
    return features + [
      TapDescription(
        name: "rpn.objectness", channels: 2 * anchors, stride: stride, kind: "class_logits"),
      TapDescription(
        name: "rpn.box_deltas", channels: 4 * anchors, stride: stride, kind: "box_deltas"),
    ]
  }

  public func tapTensors(_ batch: PreparedBatch) throws -> [(name: String, tensor: Tensor)] {
    let features = try backbone.features(batch.images)
    let (logits, deltas) = try rpnHead.maps(features[features.count - 1].tensor)
    return features.map { ("backbone.\($0.name)", $0.tensor) }
      + [("rpn.objectness", logits), ("rpn.box_deltas", deltas)]
  }

  // MARK: - Inference

  public func detect(
    _ batch: PreparedBatch, _ options: PredictionOptions
  ) throws -> [[Detection]] {
    try Tape.withoutGrad {
      let features = try backbone.features(batch.images)
      let map = features[features.count - 1].tensor
      let boxes = try proposals.proposals(
        rpnHead(map), sizes: batch.sizes, stride: stride, training: false)
      let rois = try regions(boxes)
      let (logits, deltas) = try roiHead(map, rois)
      let finish = RoIPostprocessing(configuration: configuration.roi, options: options)
      return try finish.detections(
        logits: logits, deltas: deltas, rois: rois, counts: boxes.map { $0.count / 4 }, batch: batch
      )
    }
  }

  /// (R, 5) from boxes per image.
  private func regions(_ boxes: [[Float]]) throws -> Tensor {
    var values: [Float] = []
    for (image, list) in boxes.enumerated() {
      for box in 0..<list.count / 4 {
        values.append(Float(image))
        values += list[4 * box..<4 * box + 4]
      }
    }
    return try Tensor(values, shape: [values.count / 5, 5])
  }

  // MARK: - Checks

  private func checkLabels(_ batch: PreparedBatch) throws {
    for (image, labels) in batch.labels.enumerated() {
      for (index, label) in labels.enumerated() where label < 1 || label >= Int64(classCount) {
        throw KDSError.argument(
          "targets[\(image)]: label \(label) of box \(index) is outside 1...\(classCount - 1) "
            + "(num_classes = \(classCount) counts the background)")
      }
    }
  }

  private static func check(_ c: FasterRCNNConfiguration) throws {
    guard c.num_classes >= 2, c.num_classes <= 100_000 else {
      throw KDSError.argument(
        "num_classes: \(c.num_classes) must be at least 2 (background counts)")
    }
    guard c.class_names.isEmpty || c.class_names.count == c.num_classes else {
      throw KDSError.argument(
        "class_names: \(c.class_names.count) names for num_classes = \(c.num_classes) (background counts)"
      )
    }
    guard c.image_min > 0, c.image_max >= c.image_min, c.image_max <= 1 << 14 else {
      throw KDSError.argument(
        "image size: min \(c.image_min) and max \(c.image_max) must be 0 < min <= max")
    }
    guard c.size_divisor > 0, c.size_divisor <= 1024 else {
      throw KDSError.argument("size_divisor: \(c.size_divisor) must be positive")
    }
    guard c.image_mean.count == c.backbone.in_channels, c.image_std.count == c.backbone.in_channels,
      c.image_std.allSatisfy({ $0 > 0 })
    else {
      throw KDSError.argument(
        "image_mean and image_std need \(c.backbone.in_channels) entries (in_channels), std positive"
      )
    }
    guard c.rpn.batch > 0, c.roi.batch > 0, c.roi.max_detections > 0, c.rpn.post_nms_test > 0,
      c.rpn.post_nms_train > 0, c.rpn.pre_nms_test > 0, c.rpn.pre_nms_train > 0
    else {
      throw KDSError.argument("rpn and roi: batch sizes and limits must be positive")
    }
    guard c.roi.pool_size >= 0, c.roi.pool_size <= 64, c.roi.dropout < 1,
      c.roi.sampling_ratio <= 64,
      c.roi.hidden.allSatisfy({ $0 > 0 && $0 <= 1 << 16 }), c.rpn.channels <= 1 << 14
    else {
      throw KDSError.argument("roi: pool_size, hidden and dropout are out of range")
    }
  }
}
