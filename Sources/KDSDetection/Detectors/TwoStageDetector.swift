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

/// "rpn.objectness" and "rpn.box_deltas", with the level's name behind where there are several.
func rpnTaps(_ output: RPNOutput, _ levels: [Feature]) -> [NamedTensor] {
  zip(output.maps, levels).flatMap { maps, level -> [NamedTensor] in
    let suffix = levelSuffix(level.name, of: levels.count)
    return [("rpn.objectness" + suffix, maps.logits), ("rpn.box_deltas" + suffix, maps.deltas)]
  }
}

/// ".p3" for "neck.p3" among several levels, nothing for the only one.
func levelSuffix(_ name: String, of count: Int) -> String {
  count == 1 ? "" : "." + (name.split(separator: ".").last.map(String.init) ?? name)
}

/// A detector of proposals and regions: what they share up to the proposals.
public protocol TwoStageDetector: Detector {
  var configuration: FasterRCNNConfiguration { get }
  var proposals: RegionProposals { get }
  var rpnHead: RPNHead { get }
}

extension TwoStageDetector {
  public var backbone: Backbone { source.body }
  public var common: any DetectorConfiguration { configuration }

  public func anchorGrids(input: Size2) throws -> [(level: String, boxes: [Float])] {
    try proposals.anchors.named(source, input: input)
  }

  public func densePass(_ batch: PreparedBatch) throws -> any DensePass { try dense(batch) }

  /// `densePass` with its own type.
  public func dense(_ batch: PreparedBatch) throws -> FasterRCNNDensePass {
    let maps = try source.maps(batch.images)
    return FasterRCNNDensePass(
      batch: batch, maps: maps, rpnOutput: try rpnHead(maps.levels.map(\.tensor)))
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

  /// The proposal network's two losses.
  func proposalLosses(_ sample: HeadSample) throws -> [NamedTensor] {
    [
      ("loss_objectness", try sample.classificationLoss()),
      ("loss_rpn_box_reg", try sample.regressionLoss(beta: configuration.rpn.smooth_l1_beta)),
    ]
  }
}

/// The proposal network of a configuration.
func makeProposals(
  _ configuration: FasterRCNNConfiguration, _ source: any FeatureSource,
  _ initializer: Initializer
) throws -> (RegionProposals, RPNHead) {
  let anchors = try PyramidAnchors(
    sizes: configuration.anchor_sizes, ratios: configuration.anchor_ratios,
    strides: source.levelDescriptions.map(\.stride), strideRule: configuration.anchor_strides)
  let (rpn, inputs) = (configuration.rpn, source.levelDescriptions[0].channels)
  let usual = configuration.neck.kind == "none" ? source.body.headDefaults.rpnChannels : inputs
  let head = try RPNHead(
    inChannels: inputs, channels: rpn.channels > 0 ? rpn.channels : usual,
    anchorsPerCell: anchors.count, classes: rpn.objectness == "sigmoid" ? 1 : 2, depth: rpn.convs,
    initializer)
  return (RegionProposals(anchors: anchors, configuration: configuration.rpn), head)
}

/// The sizes of a region head, defaults filled in.
func roiHeadSizes(
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
