import KDSKernels

private struct RegionOptions: Codable {
  /// Height and width of the grid.
  var outputSize = [7, 7]
  var spatialScale: Float = 1
  /// RoIAlign only; -1 takes ceil(region size / output size).
  var samplingRatio = -1
  /// RoIAlign only.
  var aligned = false
  enum CodingKeys: String, CodingKey {
    case outputSize = "output_size"
    case spatialScale = "spatial_scale"
    case samplingRatio = "sampling_ratio"
    case aligned
  }

  func grid(_ name: String, _ inputs: [Tensor]) throws -> RoIGrid {
    let cells = try size(name, "output_size", outputSize)
    guard spatialScale > 0, spatialScale.isFinite, samplingRatio <= maximumSamples else {
      throw KDSError.argument(
        "\(name): spatial_scale \(spatialScale) must be positive and sampling_ratio "
          + "\(samplingRatio) at most \(maximumSamples)")
    }
    if inputs[0].rank == 4, inputs[1].rank == 2 {
      _ = try requireSize(
        name, [inputs[1].shape[0], inputs[0].shape[1], cells.height, cells.width])
    }
    return RoIGrid(
      height: cells.height, width: cells.width, spatialScale: spatialScale,
      samplingRatio: samplingRatio, aligned: aligned)
  }
}

/// More samples per cell than this only cost time.
private let maximumSamples = 1024

private struct InterpolateOptions: Codable {
  /// Height and width of the result.
  var size = [1, 1]
  var mode = "nearest"
}

private struct LayerNormOptions: Codable {
  var eps: Float = 1e-5
  /// Whether the one further input is the bias, with no weight.
  var biasOnly = false
  enum CodingKeys: String, CodingKey { case eps, biasOnly = "bias_only" }
}

private struct WindowAttentionOptions: Codable {
  var heads = 1
  var window = 7
  var shift = 0
}

extension OpRegistry {
  /// Operations on feature maps.
  static let maps: [OpEntry] = [
    OpEntry("roi_align", 2...2, RegionOptions(), "RoIAlign: (N, C, H, W), rois (R, 5)") {
      try $0[0].roiAlign($0[1].plain(), grid: $1.grid("roi_align", $0))
    },
    OpEntry("roi_pool", 2...2, RegionOptions(), "RoI max pooling: (N, C, H, W), rois (R, 5)") {
      try $0[0].roiPool($0[1].plain(), grid: $1.grid("roi_pool", $0))
    },
    OpEntry(
      "ps_roi_pool", 2...2, RegionOptions(),
      "position-sensitive RoI pooling: (N, C, H, W), rois (R, 5)"
    ) {
      try $0[0].psRoIPool($0[1].plain(), grid: $1.grid("ps_roi_pool", $0))
    },
    OpEntry("interpolate", 1...1, InterpolateOptions(), "resized: mode nearest or bilinear") {
      let target = try size("interpolate", "size", $1.size)
      if $0[0].rank == 4 {
        _ = try requireSize(
          "interpolate", [$0[0].shape[0], $0[0].shape[1], target.height, target.width])
      }
      switch $1.mode {
      case "nearest": return try $0[0].resizedNearest(target)
      case "bilinear": return try $0[0].resizedBilinear(target)
      default:
        throw KDSError.argument(
          "interpolate: mode must be nearest or bilinear, not \($1.mode)")
      }
    },
    OpEntry("layer_norm", 1...3, LayerNormOptions(), "over the last axis: input, weight, bias") {
      let biasOnly = $1.biasOnly && $0.count == 2
      return try $0[0].layerNorm(
        weight: biasOnly ? nil : $0.optional(1), bias: biasOnly ? $0[1] : $0.optional(2),
        eps: $1.eps)
    },
    OpEntry(
      "window_attention", 2...3, WindowAttentionOptions(),
      "attention inside shifted windows: qkv (N, H, W, 3C), table of biases, what padding has"
    ) {
      try $0[0].windowAttention(
        table: $0[1], padding: $0.optional(2), heads: $1.heads, window: $1.window, shift: $1.shift)
    },
    OpEntry("merge_patches", 1...1, "2 x 2 neighbours of (N, H, W, C) in one token of 4C") {
      try $0[0].mergedPatches()
    },
  ]
}
