import KDSDetection
import KDSKernels
import KDSNN
import KDSTensor

/// A quantizer behind a feature map, as a model file records it.
public struct RecordedQuantizer: Codable, Equatable {
  /// Name of the map: "backbone.layer3", "neck.p3".
  public var layer: String
  public var step: Float
  /// "uniform" or "power_of_two"
  public var form: String

  public init(layer: String, step: Float, form: String) {
    (self.layer, self.step, self.form) = (layer, step, form)
  }

  /// Puts it behind the map; one that stood there goes.
  ///
  /// - Throws: `KDSError.argument` for a map that heads do not read, a step or a form that cannot be.
  func apply(to model: Module) throws {
    guard let source = (model as? any Detector)?.source else {
      throw KDSError.format("surgery: a quantizer needs a detector, not \(type(of: model))")
    }
    let levels = source.levelDescriptions.map(\.name)
    guard levels.contains(layer) else {
      throw KDSError.argument(
        "quantize_features: \"\(layer)\" is not a map that heads read; they read \(levels)")
    }
    guard step > 0, step.isFinite else {
      throw KDSError.argument("quantize_features: step \(step) must be above 0 and finite")
    }
    guard let form = QuantizerForm(rawValue: form) else {
      throw KDSError.argument(
        "quantize_features: form \"\(form)\" is neither \"uniform\" nor \"power_of_two\"")
    }
    source.body.quantizers[layer] = FeatureQuantizer(step: step, form: form)
  }
}

/// Puts quantizers behind the maps that heads read (Wei et al. 2018), in place.
///
/// The weights stay: a quantized teacher is this model finetuned.
/// - Parameter layer: one of those maps; nil takes them all: the backbone's last, or every level of the
///   neck.
public func quantizeFeatures(
  _ model: any Detector, step: Float = 1, form: String = QuantizerForm.uniform.rawValue,
  layer: String? = nil
) throws -> SurgeryRecord {
  let layers = layer.map { [$0] } ?? model.source.levelDescriptions.map(\.name)
  let record = SurgeryRecord(
    quantizers: layers.map { RecordedQuantizer(layer: $0, step: step, form: form) })
  for entry in record.quantizers { try entry.apply(to: model) }
  return record
}
