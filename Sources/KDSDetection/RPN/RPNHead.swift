import KDSNN
import KDSTensor

/// What the proposal head says about every anchor.
public struct RPNOutput {
  /// (N·H·W·A, 2) background and object logits, plain; rows are images, then anchors in grid order.
  public let logits: Tensor
  /// (N·H·W·A, 4) box offsets.
  public let deltas: Tensor
  /// The maps before flattening, (N, 2A, H, W) and (N, 4A, H, W).
  public let logitMap, deltaMap: Tensor
  public var images: Int { logitMap.shape[0] }
  public var height: Int { logitMap.shape[2] }
  public var width: Int { logitMap.shape[3] }
}

/// 3×3 convolution with ReLU, then two 1×1 convolutions: two-class softmax and box offsets
/// (Ren et al. 2015). Names follow torchvision: `conv`, `cls_logits`, `bbox_pred`.
public final class RPNHead: Module {
  public let anchorsPerCell: Int

  public init(
    inChannels: Int, channels: Int, anchorsPerCell: Int, _ initializer: Initializer
  ) throws {
    self.anchorsPerCell = anchorsPerCell
    super.init()
    // Normal with deviation 0.01, as published.
    child(
      "conv",
      try Conv2d(
        inChannels, channels, kernel: 3, activation: .relu, deviation: 0.01, initializer))
    child(
      "cls_logits",
      try Conv2d(channels, 2 * anchorsPerCell, kernel: 1, deviation: 0.01, initializer))
    child(
      "bbox_pred",
      try Conv2d(channels, 4 * anchorsPerCell, kernel: 1, deviation: 0.01, initializer))
  }

  /// Maps before they are flattened: (N, 2A, H, W) and (N, 4A, H, W).
  public func maps(_ feature: Tensor) throws -> (logits: Tensor, deltas: Tensor) {
    let hidden = try layer("conv")(feature)
    return (try layer("cls_logits")(hidden), try layer("bbox_pred")(hidden))
  }

  public func callAsFunction(_ feature: Tensor) throws -> RPNOutput {
    let (logits, deltas) = try maps(feature)
    return try Self.flatten(logits, deltas)
  }

  /// (N, A·K, H, W) to (N·H·W·A, K), for both maps.
  public static func flatten(_ logits: Tensor, _ deltas: Tensor) throws -> RPNOutput {
    RPNOutput(
      logits: try logits.channelsLast().reshaped([-1, 2]),
      deltas: try deltas.channelsLast().reshaped([-1, 4]),
      logitMap: logits, deltaMap: deltas)
  }
}
