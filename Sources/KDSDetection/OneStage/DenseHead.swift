import KDSNN
import KDSTensor

/// What a dense head says about one level: (N, K·A, H, W) logits and (N, 4A, H, W) box numbers.
public struct DenseMaps {
  public let logits, boxes: Tensor
  public var size: Size2 { Size2(logits.shape[2], logits.shape[3]) }

  public init(logits: Tensor, boxes: Tensor) {
    self.logits = logits
    self.boxes = boxes
  }
}

/// One branch of a dense head: 3×3 convolutions with ReLU, shared by all levels, and a last 3×3.
///
/// Names are torchvision's: `conv.0.0` (and `conv.0.1` for its normalization), then the given one.
final class DenseBranch: Module {
  private let pairs: [ConvNorm]
  private let output: String

  init(
    channels: Int, depth: Int, outputs: Int, output: String, norm: Normalization,
    bias: Float = 0, _ initializer: Initializer
  ) throws {
    pairs = (0..<depth).map { _ in ConvNorm("0", norm == .none ? nil : "1") }
    self.output = output
    super.init()
    let tower = child("conv", Module())
    for (index, pair) in pairs.enumerated() {
      // Deviation 0.01 (Lin et al. 2017): gain = 0.01² · fan.
      try tower.child("\(index)", Module()).register(
        pair, channels, channels, kernel: 3, norm: norm, activation: .relu,
        gain: 1e-4 * Float(9 * channels), initializer)
    }
    let last = try Conv2d(channels, outputs, kernel: 3, deviation: 0.01, initializer)
    if let tensor = last.bias {
      tensor.floats.update(repeating: bias, count: tensor.count)
    }
    child(output, last)
  }

  func callAsFunction(_ map: Tensor) throws -> Tensor {
    var value = map
    for (index, pair) in pairs.enumerated() {
      guard let owner = module(at: "conv.\(index)") else { continue }
      value = try pair(value, in: owner)
    }
    return try layer(output)(value)
  }
}
