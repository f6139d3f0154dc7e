import KDSNN
import KDSTensor

/// What the proposal head says about one level.
public struct RPNMaps {
  /// (N, K·A, H, W): two-class logits (K = 2) or one objectness logit (K = 1) per anchor.
  public let logits: Tensor
  /// (N, 4A, H, W) box offsets.
  public let deltas: Tensor
  public var height: Int { logits.shape[2] }
  public var width: Int { logits.shape[3] }

  public init(logits: Tensor, deltas: Tensor) {
    self.logits = logits
    self.deltas = deltas
  }
}

/// What the proposal head says about every anchor.
public struct RPNOutput {
  /// (N·M, K) logits, plain; rows are images, then levels, then anchors in grid order.
  public let logits: Tensor
  /// (N·M, 4) box offsets.
  public let deltas: Tensor
  /// The maps before flattening, fine to coarse.
  public let maps: [RPNMaps]
  public var images: Int { maps[0].logits.shape[0] }
  /// M, anchors of one image.
  public var anchors: Int { deltas.shape[0] / max(1, images) }

  /// From the maps of all levels.
  public init(_ maps: [RPNMaps], classes: Int) throws {
    self.maps = maps
    logits = try flattenMaps(maps.map(\.logits), columns: classes)
    deltas = try flattenMaps(maps.map(\.deltas), columns: 4)
  }
}

/// Maps (N, A·K, H, W) of several levels to rows (N·M, K): images, then levels, cells and anchors.
public func flattenMaps(_ maps: [Tensor], columns: Int) throws -> Tensor {
  let images = maps[0].shape[0]
  let levels = try maps.map { try $0.channelsLast().reshaped([images, -1, columns]) }
  let all = levels.count == 1 ? levels[0] : try Tensor.concatenated(levels, axis: 1)
  return try all.reshaped([-1, columns])
}

/// 3×3 convolutions with ReLU, then two 1×1 convolutions: objectness and box offsets (Ren et al. 2015).
/// Names follow torchvision: `conv.0.0`, `cls_logits`, `bbox_pred`.
public final class RPNHead: Module {
  public let anchorsPerCell: Int
  /// Logits per anchor: 2 for the published softmax, 1 for the sigmoid of torchvision.
  public let classes: Int

  /// - Parameter depth: 3×3 convolutions; one as published.
  public init(
    inChannels: Int, channels: Int, anchorsPerCell: Int, classes: Int = 2, depth: Int = 1,
    _ initializer: Initializer
  ) throws {
    guard (1...16).contains(depth) else {
      throw KDSError.argument("rpn.convs: \(depth) must be 1 to 16")
    }
    self.anchorsPerCell = anchorsPerCell
    self.classes = classes
    super.init()
    // Normal with deviation 0.01, as published.
    let tower = child("conv", Sequential())
    for index in 0..<depth {
      tower.append(
        Sequential([
          try Conv2d(
            index == 0 ? inChannels : channels, channels, kernel: 3, activation: .relu,
            deviation: 0.01, initializer)
        ]))
    }
    child(
      "cls_logits",
      try Conv2d(channels, classes * anchorsPerCell, kernel: 1, deviation: 0.01, initializer))
    child(
      "bbox_pred",
      try Conv2d(channels, 4 * anchorsPerCell, kernel: 1, deviation: 0.01, initializer))
  }

  /// Maps of one level before they are flattened.
  public func maps(_ feature: Tensor) throws -> RPNMaps {
    let hidden = try layer("conv")(feature)
    return RPNMaps(
      logits: try layer("cls_logits")(hidden), deltas: try layer("bbox_pred")(hidden))
  }

  public func callAsFunction(_ levels: [Tensor]) throws -> RPNOutput {
    try RPNOutput(levels.map(maps), classes: classes)
  }
}
