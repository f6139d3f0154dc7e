import KDSNN
import KDSTensor

/// One detected object, in pixels of the original image.
public struct Detection {
  /// x1, y1, x2, y2
  public var box: SIMD4<Float>
  public var score: Float
  public var label: Int64
}

/// Limits of inference; a negative number means "as the detector was configured".
public struct PredictionOptions: Codable, Equatable {
  public var score_threshold: Float = -1
  public var nms_threshold: Float = -1
  public var max_detections = -1

  public init() {}
}

/// A named output where distillation may look.
public struct TapDescription: Codable, Equatable {
  public var name: String
  public var channels: Int
  public var stride: Int
  /// "feature", "class_logits" or "box_deltas"
  public var kind: String
}

/// What the outside may ask of any detector. Distillation knows detectors only by this and their taps.
public protocol Detector: Module {
  /// Classes including background.
  var classCount: Int { get }
  /// JSON that rebuilds the detector, defaults filled in.
  func configurationText() throws -> String
  /// Resizes, normalizes and pads images for this detector.
  func prepare(_ batch: RawBatch) throws -> PreparedBatch
  /// Training losses by name, scalars on the tape.
  func losses(_ batch: PreparedBatch, seed: UInt64) throws -> [(name: String, tensor: Tensor)]
  /// Every tap's tensor of a forward pass without proposals.
  func tapTensors(_ batch: PreparedBatch) throws -> [(name: String, tensor: Tensor)]
  var taps: [TapDescription] { get }
  /// Detections per image, best first.
  func detect(_ batch: PreparedBatch, _ options: PredictionOptions) throws -> [[Detection]]
}
