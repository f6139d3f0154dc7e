import KDSKernels
import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// Cuts regions out of the maps of one or several levels.
///
/// A region of area a goes to level k = floor(k₀ + log2(√a / 224) + 1e-6), k₀ = 4, kept within the
/// levels (eq. 1 of Lin et al. 2017, as in torchvision).
public struct RoIPooler {
  public let strides: [Int]
  public let size: Int
  /// "align" or "pool".
  public let kind: String
  public let samplingRatio: Int

  /// - Throws: `KDSError.argument` for an unknown kind, or "pool" over several levels.
  public init(strides: [Int], size: Int, kind: String, samplingRatio: Int) throws {
    guard ["align", "pool"].contains(kind) else {
      throw KDSError.argument("roi.pool: \"\(kind)\" is neither \"align\" nor \"pool\"")
    }
    guard kind == "align" || strides.count == 1 else {
      throw KDSError.argument("roi.pool: \"pool\" reads one level, there are \(strides.count)")
    }
    (self.strides, self.size, self.kind) = (strides, size, kind)
    self.samplingRatio = samplingRatio
  }

  /// (R, C, size, size) from levels (N, C, H, W), fine to coarse, and regions (R, 5) in input pixels.
  public func callAsFunction(_ levels: [Tensor], _ rois: Tensor) throws -> Tensor {
    let grids = strides.map {
      RoIGrid(
        height: size, width: size, spatialScale: 1 / Float($0), samplingRatio: samplingRatio,
        aligned: false)
    }
    if kind == "pool" { return try levels[0].roiPool(rois, grid: grids[0]) }
    return try Tensor.roiAlign(
      levels: Array(levels.prefix(strides.count)), rois, grids: grids, levelOf: assign(rois))
  }

  /// Index of the level of every region.
  func assign(_ rois: Tensor) -> [Int] {
    let finest = Float(strides[0].trailingZeroBitCount)
    let most = Float(strides.count - 1)
    return (0..<rois.shape[0]).map { row in
      if most == 0 { return 0 }
      let roi = rois.floats + 5 * row
      let area = (roi[3] - roi[1]) * (roi[4] - roi[2])
      let level = (4 + log2(area.squareRoot() / 224) + 1e-6).rounded(.down) - finest
      // Also sends NaN and the −∞ of an empty region to the finest level.
      return level > 0 ? Int(min(level, most)) : 0
    }
  }
}
