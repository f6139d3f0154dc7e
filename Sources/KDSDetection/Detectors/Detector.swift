import KDSNN
import KDSTensor

/// One detected object, in pixels of the original image.
public struct Detection {
  /// x1, y1, x2, y2
  public var box: SIMD4<Float>
  public var score: Float
  public var label: Int64
  /// Probabilities of a square mask over the box, row by row; empty where the detector finds none.
  public var mask: [Float] = []
}

/// Limits of inference; a negative number means "as the detector was configured".
public struct PredictionOptions: Codable, Equatable {
  public var score_threshold: Float = -1
  public var nms_threshold: Float = -1
  public var max_detections = -1
  /// "fp32" or "bf16", see `Precision`.
  public var precision = "fp32"

  public init() {}
}

/// A named output where distillation may look.
public struct TapDescription: Codable, Equatable {
  public var name: String
  public var channels: Int
  public var stride: Int
  /// "feature", "class_logits", "box_deltas", "box_distribution" or "centerness"
  public var kind: String

  public init(name: String, channels: Int, stride: Int, kind: String) {
    (self.name, self.channels, self.stride, self.kind) = (name, channels, stride, kind)
  }
}

/// A tensor with the name of its tap.
public typealias NamedTensor = (name: String, tensor: Tensor)

/// What a detector computed for one batch before any region: maps and dense head outputs.
public protocol DensePass {
  var batch: PreparedBatch { get }
  var maps: FeatureMaps { get }
  /// Outputs of the dense head under tap names, level by level.
  var headTaps: [NamedTensor] { get }
}

/// Everything that one training pass computed: its losses, and what distillation terms are made of.
public protocol TrainingPass: DensePass {
  /// Scalars on the tape, under torchvision's names.
  var losses: [NamedTensor] { get }
  /// Outputs for the regions that were sampled in this pass.
  var regionTaps: [NamedTensor] { get }
}

extension DensePass {
  /// Every tap of the pass.
  public var taps: [NamedTensor] { maps.taps.map { ($0.name, $0.tensor) } + headTaps }
}

extension TrainingPass {
  public var regionTaps: [NamedTensor] { [] }
}

/// What the outside may ask of any detector. Distillation knows detectors only by this and their taps.
public protocol Detector: Module {
  /// What all detectors share of their configurations.
  var common: any DetectorConfiguration { get }
  /// Backbone and neck.
  var source: any FeatureSource { get }
  /// Outputs of the dense head where distillation may look.
  var headTaps: [TapDescription] { get }
  /// Forward pass of a training step, losses included. `seed` draws samples and dropout.
  func trainingPass(_ batch: PreparedBatch, seed: UInt64) throws -> any TrainingPass
  /// Maps and dense outputs, no regions.
  func densePass(_ batch: PreparedBatch) throws -> any DensePass
  /// Detections per image, best first. Runs without tape.
  func detect(_ batch: PreparedBatch, _ options: PredictionOptions) throws -> [[Detection]]
  /// Anchors of every level by its name, (cells · anchors, 4) xyxy, for an input of this size.
  func anchorGrids(input: Size2) throws -> [(level: String, boxes: [Float])]
  /// Whether detections come with masks, and learning needs them.
  var hasMasks: Bool { get }
}

extension Detector {
  /// Classes including background.
  public var classCount: Int { common.num_classes }

  public var hasMasks: Bool { false }

  /// JSON that rebuilds the detector, defaults filled in.
  public func configurationText() throws -> String { try StrictJSON.encode(common) }

  /// Resizes, normalizes and pads images for this detector.
  public func prepare(_ batch: RawBatch) throws -> PreparedBatch {
    try ImagePreparation(common).prepare(batch)
  }

  /// `densePass` without its heads: the maps of backbone and neck.
  public func mapsPass(_ batch: PreparedBatch) throws -> any DensePass {
    MapsPass(batch: batch, maps: try source.maps(batch.images))
  }

  /// Training losses by name, scalars on the tape.
  public func losses(_ batch: PreparedBatch, seed: UInt64) throws -> [NamedTensor] {
    try trainingPass(batch, seed: seed).losses
  }

  /// Where distillation may look: maps of backbone and neck, dense outputs.
  public var taps: [TapDescription] {
    source.tapDescriptions.map {
      TapDescription(name: $0.name, channels: $0.channels, stride: $0.stride, kind: "feature")
    } + headTaps
  }
}

/// A pass of which only the maps are read.
private struct MapsPass: DensePass {
  let batch: PreparedBatch
  let maps: FeatureMaps
  var headTaps: [NamedTensor] { [] }
}
