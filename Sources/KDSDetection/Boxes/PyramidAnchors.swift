import KDSTensor

/// Anchors of all levels of a detector, level after level.
public struct PyramidAnchors {
  /// One generator per level, fine to coarse; all with the same number of anchors per cell.
  public let levels: [AnchorGenerator]
  /// Nominal input pixels per cell of each level.
  public let strides: [Int]
  /// Steps are input size / map size, rounded down, per axis, as in torchvision; else nominal ones.
  public let measuresStrides: Bool

  /// - Parameters:
  ///   - sizes: square roots of the areas: one list for every level, level after level.
  ///   - strideRule: "nominal" or "image".
  public init(
    sizes: [Float], ratios: [Float], strides: [Int], strideRule: String = "nominal"
  ) throws {
    guard ["nominal", "image"].contains(strideRule) else {
      throw KDSError.argument(
        "anchor_strides: \"\(strideRule)\" is neither \"nominal\" nor \"image\"")
    }
    guard !strides.isEmpty, sizes.count % strides.count == 0 else {
      throw KDSError.argument(
        "anchor_sizes: \(sizes.count) sizes cannot be shared out to \(strides.count) levels "
          + "(strides \(strides)); list those of every level, fine to coarse")
    }
    let each = sizes.count / strides.count
    levels = try strides.indices.map {
      try AnchorGenerator(sizes: Array(sizes[$0 * each..<($0 + 1) * each]), ratios: ratios)
    }
    self.strides = strides
    measuresStrides = strideRule == "image"
  }

  /// Anchors per cell.
  public var count: Int { levels[0].count }

  /// Anchors of one level, (cells · count, 4), for an input of this size.
  public func grid(level: Int, map: Size2, input: Size2) -> [Float] {
    let nominal = strides[level]
    let step =
      measuresStrides
      ? Size2(input.height / max(1, map.height), input.width / max(1, map.width)) : Size2(nominal)
    return levels[level].grid(height: map.height, width: map.width, step: step)
  }
}
