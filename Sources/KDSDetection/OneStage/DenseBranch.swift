import KDSNN
import KDSTensor

/// One branch of a dense head: 3×3 convolutions with ReLU (the tower), shared by all levels, and last
/// 3×3 convolutions.
///
/// Names are torchvision's: of RetinaNet `conv.0.0` (and `conv.0.1` for its normalization), or of FCOS
/// `conv.0`, `conv.1`, `conv.3`, … in one list; then those of the last ones.
public final class DenseBranch: Module {
  /// A last convolution.
  struct Output {
    var name: String
    var channels: Int
    var bias: Float = 0
    var activation: Activation = .none
  }

  /// What distinguishes towers.
  struct Style {
    /// 3×3 convolutions before the last ones.
    var depth: Int
    var norm: Normalization
    /// All in one list, convolutions with bias, as in torchvision's FCOS.
    var flat = false
  }

  private let pairs: [(owner: String, pair: ConvNorm)]
  private let outputs: [String]

  init(channels: Int, style: Style, outputs: [Output], _ initializer: Initializer) throws {
    let flat = style.flat
    pairs = (0..<style.depth).map { index in
      let (first, second) = flat ? ("\(3 * index)", "\(3 * index + 1)") : ("0", "1")
      return (
        flat ? "conv" : "conv.\(index)", ConvNorm(first, style.norm == .none ? nil : second)
      )
    }
    self.outputs = outputs.map(\.name)
    super.init()
    let tower = child("conv", Module())
    for (index, entry) in pairs.enumerated() {
      let owner = flat ? tower : tower.child("\(index)", Module())
      // Deviation 0.01 (Lin et al. 2017): gain = 0.01² · fan.
      try owner.register(
        entry.pair, channels, channels, kernel: 3, norm: style.norm, activation: .relu,
        gain: 1e-4 * Float(9 * channels), bias: flat ? true : nil, initializer)
    }
    for output in outputs {
      let last = try Conv2d(
        channels, output.channels, kernel: 3, activation: output.activation, deviation: 0.01,
        initializer)
      if let tensor = last.bias {
        tensor.floats.update(repeating: output.bias, count: tensor.count)
      }
      child(output.name, last)
    }
  }

  /// Convolutions of the tower.
  public var depth: Int { pairs.count }

  /// The last convolutions' outputs for a map (N, C, H, W) of any level.
  func callAsFunction(_ map: Tensor) throws -> [Tensor] { try last(tower(map, keep: nil)) }

  /// The same, and what every ReLU of the tower gets: the convolutions' outputs, normalized.
  func withTower(_ map: Tensor) throws -> (outputs: [Tensor], tower: [Tensor]) {
    var kept: [Tensor] = []
    let value = try tower(map) { kept.append($0) }
    return (try last(value), kept)
  }

  /// Goes on where `start` convolutions of the tower are done: with the map of a level for 0, else with
  /// what the last of them gives before its ReLU.
  func resumed(_ features: Tensor, after start: Int) throws -> [Tensor] {
    try last(tower(start > 0 ? features.relu() : features, from: start, keep: nil))
  }

  private func tower(
    _ map: Tensor, from start: Int = 0, keep: ((Tensor) -> Void)?
  ) throws -> Tensor {
    var value = map
    for (path, pair) in pairs[start...] {
      guard let owner = module(at: path) else { continue }
      guard let keep else {
        value = try pair(value, in: owner)
        continue
      }
      let before = try pair(value, in: owner, activated: false)
      keep(before)
      value = try before.relu()
    }
    return value
  }

  private func last(_ value: Tensor) throws -> [Tensor] {
    try outputs.map { try layer($0)(value) }
  }
}
