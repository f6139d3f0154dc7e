import KDSKernels
import KDSTensor

/// The quantizer behind a map that heads read (Wei et al. 2018): the "quantized network" has its output
/// map, and not its weights, on a few values.
public struct FeatureQuantizer: Equatable {
  /// Distance of neighbouring values; 1 in the paper.
  public var step: Float
  public var form: QuantizerForm

  public init(step: Float = 1, form: QuantizerForm = .uniform) {
    (self.step, self.form) = (step, form)
  }
}

extension FeatureMaps {
  /// The same maps, those with a quantizer of their name behind it. It is a quantized ReLU: gradients pass
  /// where the map is positive.
  func quantized(_ quantizers: [String: FeatureQuantizer]) throws -> FeatureMaps {
    if quantizers.isEmpty { return self }
    var made: [String: Feature] = [:]
    for feature in taps + levels where made[feature.name] == nil {
      guard let own = quantizers[feature.name] else { continue }
      made[feature.name] = Feature(
        name: feature.name,
        tensor: try feature.tensor.quantized(step: own.step, form: own.form, relu: true),
        stride: feature.stride)
    }
    return FeatureMaps(
      taps: taps.map { made[$0.name] ?? $0 }, levels: levels.map { made[$0.name] ?? $0 })
  }
}
