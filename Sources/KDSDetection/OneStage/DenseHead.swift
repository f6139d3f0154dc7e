import KDSNN
import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// What a dense head says about one level: (N, A·K, H, W) logits, (N, A·columns, H, W) box numbers, and
/// for some heads (N, A, H, W) logits of how central a place lies in its object.
public struct DenseMaps {
  public let logits, boxes: Tensor
  public var centerness: Tensor?
  /// What the ReLUs of the towers get, under names such as "classification.conv0"; empty unless asked for.
  public var towers: [NamedTensor] = []
  public var size: Size2 { Size2(logits.shape[2], logits.shape[3]) }

  public init(logits: Tensor, boxes: Tensor, centerness: Tensor? = nil) {
    self.logits = logits
    self.boxes = boxes
    self.centerness = centerness
  }
}

/// How class probability p and centerness c become the score of a detection.
public enum ScoreRule {
  /// p
  case probability
  /// p · c (Zhang et al. 2020)
  case product
  /// sqrt(p · c) (Tian et al. 2020; torchvision)
  case root
}

/// The head of a one-stage detector: a branch for classes and one for boxes, shared by all levels.
///
/// A subclass says what the box numbers mean and computes the losses.
public class DenseHead: Module {
  /// What a head stands on.
  public struct Place {
    public let channels, anchorsPerCell, classes: Int
    public let levels: Int
  }

  public let common: any DenseHeadConfiguration
  public let coding: BoxCoding
  public let scoring: ScoreRule
  /// Columns of the logits; column 0 is the background's and stays unused, as in torchvision.
  public let classes: Int
  public let anchorsPerCell: Int
  public let classification, regression: DenseBranch
  private let scales: [Tensor]

  /// - Parameters:
  ///   - scaled: box numbers are multiplied by a learned number per level, 1 at first.
  ///   - boxActivation: behind the box numbers.
  init(
    _ configuration: any DenseHeadConfiguration, _ place: Place, coding: BoxCoding,
    scoring: ScoreRule, flat: Bool = false, scaled: Bool = false,
    boxActivation: Activation = .none, _ initializer: Initializer
  ) throws {
    try configuration.check()
    common = configuration
    self.coding = coding
    self.scoring = scoring
    classes = place.classes
    anchorsPerCell = place.anchorsPerCell
    let style = DenseBranch.Style(
      depth: configuration.convs, norm: try Normalization(configuration.norm, of: "head"),
      flat: flat)
    // Every class starts at the prior probability, so that the many backgrounds do not swamp the loss.
    let prior = -log((1 - configuration.prior) / configuration.prior)
    classification = try DenseBranch(
      channels: place.channels, style: style,
      outputs: [.init(name: "cls_logits", channels: anchorsPerCell * classes, bias: prior)],
      initializer)
    var outputs = [
      DenseBranch.Output(
        name: "bbox_reg", channels: anchorsPerCell * coding.columns, activation: boxActivation)
    ]
    if scoring != .probability {
      outputs.append(.init(name: "bbox_ctrness", channels: anchorsPerCell))
    }
    regression = try DenseBranch(
      channels: place.channels, style: style, outputs: outputs, initializer)
    scales = try scaled ? (0..<place.levels).map { _ in try Tensor(filled: 1, shape: [1]) } : []
    super.init()
    child("classification_head", classification)
    child("regression_head", regression)
    if scaled {
      let owner = child("scales", Module())
      for (level, scale) in scales.enumerated() {
        owner.child("\(level)", Module()).parameter("scale", scale)
      }
    }
  }

  /// Which anchors are positive.
  func targets(_ grid: DenseGrid, _ batch: PreparedBatch) throws -> DenseTargets {
    throw KDSError.runtime("\(type(of: self)) has no targets")
  }

  /// The losses of a batch, weighted, by name: scalars on the tape.
  func losses(_ maps: [DenseMaps], _ targets: DenseTargets) throws -> [NamedTensor] {
    throw KDSError.runtime("\(type(of: self)) has no losses")
  }

  // MARK: - Outputs

  /// - Parameter towers: also keep what the ReLUs of the towers get.
  func callAsFunction(_ map: Tensor, level: Int, towers: Bool) throws -> DenseMaps {
    guard towers else {
      return try maps(classification(map), regression(map), level)
    }
    let (logits, classTower) = try classification.withTower(map)
    let (boxes, boxTower) = try regression.withTower(map)
    var result = try maps(logits, boxes, level)
    result.towers =
      classTower.enumerated().map { ("classification.conv\($0)", $1) }
      + boxTower.enumerated().map { ("regression.conv\($0)", $1) }
    return result
  }

  private func maps(_ logits: [Tensor], _ boxes: [Tensor], _ level: Int) throws -> DenseMaps {
    DenseMaps(
      logits: logits[0], boxes: try scaled(boxes[0], level),
      centerness: boxes.count > 1 ? boxes[1] : nil)
  }

  private func scaled(_ boxes: Tensor, _ level: Int) throws -> Tensor {
    guard scales.indices.contains(level) else { return boxes }
    return try boxes.multiplied(by: scales[level].reshaped([1, 1, 1, 1]))
  }

  /// The outputs of one branch where `start` convolutions of its tower are done, under the names of their
  /// taps; the weights count as constants and the head as in evaluation, whatever they are otherwise.
  ///
  /// - Parameters:
  ///   - features: (N, C, H, W): the map of the level for `start` 0, else what convolution `start` - 1
  ///     gives before its ReLU.
  ///   - branch: "classification" or "regression".
  func resumed(
    _ features: Tensor, branch: String, after start: Int, level: Int
  ) throws -> [NamedTensor] {
    guard let part = ["classification": classification, "regression": regression][branch] else {
      throw KDSError.argument(
        "head_from: branch \"\(branch)\" is neither \"classification\" nor \"regression\"")
    }
    guard (0...part.depth).contains(start) else {
      throw KDSError.argument(
        "head_from: start \(start) is outside 0...\(part.depth), the convolutions of the tower")
    }
    let learned = namedParameters().map(\.tensor).filter(\.requiresGrad)
    let wasTraining = isTraining
    for tensor in learned { tensor.requiresGrad = false }
    setTraining(false)
    defer {
      for tensor in learned { tensor.requiresGrad = true }
      setTraining(wasTraining)
    }
    let outputs = try part.resumed(features, after: start)
    if branch == "classification" { return [("class_logits", outputs[0])] }
    let boxes = (coding.tap, try scaled(outputs[0], level))
    return [boxes] + (outputs.count > 1 ? [("centerness", outputs[1])] : [])
  }

  // MARK: - Taps

  /// The taps of one level, without its suffix; `towers` alone, or the outputs alone.
  func tapDescriptions(
    _ level: FeatureDescription, suffix: String, towers: Bool
  ) -> [TapDescription] {
    func tap(_ name: String, _ channels: Int, _ kind: String) -> TapDescription {
      TapDescription(
        name: "head." + name + suffix, channels: channels, stride: level.stride, kind: kind)
    }
    if towers {
      return [("classification", classification), ("regression", regression)].flatMap {
        name, branch in
        (0..<branch.depth).map { tap("\(name).conv\($0)", level.channels, "feature") }
      }
    }
    let outputs = [
      tap("class_logits", classes * anchorsPerCell, "class_logits"),
      tap(coding.tap, coding.columns * anchorsPerCell, coding.tap),
    ]
    return scoring == .probability
      ? outputs : outputs + [tap("centerness", anchorsPerCell, "centerness")]
  }

  /// The taps of one level.
  func taps(_ maps: DenseMaps, suffix: String) -> [NamedTensor] {
    var outputs = [("class_logits", maps.logits), (coding.tap, maps.boxes)]
    if let centerness = maps.centerness { outputs.append(("centerness", centerness)) }
    return outputs.map { ("head." + $0.0 + suffix, $0.1) }
  }
}
