import KDSKernels
import KDSNN
import KDSTensor

/// The region head of an R-FCN; defaults are the published ones.
public struct RFCNConfiguration: Codable, Equatable {
  /// Cells per side of a region, each with maps of its own.
  public var k = 7
  /// Channels of the 1×1 convolution behind the backbone; 0 takes 1024 times the backbone's width.
  public var channels = 0

  public init() {}

  /// - Throws: `KDSError.argument` naming the field that cannot be.
  func check() throws {
    guard (1...32).contains(k), (0...1 << 14).contains(channels) else {
      throw KDSError.argument(
        "rfcn: k \(k) must be 1 to 32 and channels \(channels) 0 to 16384")
    }
  }
}

/// Position-sensitive maps for classes and boxes, which regions only average (Dai et al. 2016): all
/// layers are convolutions over the whole map.
///
/// Names: `conv_new`, `cls_maps` (k²·K channels), `box_maps` (k²·4, shared by all classes).
public final class RFCNHead: Module {
  public let classes, k: Int
  private let stride: Int

  public init(
    _ configuration: RFCNConfiguration, inChannels: Int, stride: Int, classes: Int, width: Double,
    _ initializer: Initializer
  ) throws {
    try configuration.check()
    (k, self.stride, self.classes) = (configuration.k, stride, classes)
    let channels =
      configuration.channels > 0 ? configuration.channels : scaledChannels(1024, by: width)
    super.init()
    child(
      "conv_new", try Conv2d(inChannels, channels, kernel: 1, activation: .relu, initializer))
    child(
      "cls_maps", try Conv2d(channels, k * k * classes, kernel: 1, deviation: 0.01, initializer))
    child(
      "box_maps", try Conv2d(channels, k * k * 4, kernel: 1, deviation: 0.01, initializer))
  }

  /// Class logits (R, K) and offsets (R, 4) of regions (R, 5): the mean of their cells' votes.
  public func callAsFunction(
    _ map: Tensor, _ rois: Tensor
  ) throws -> (logits: Tensor, deltas: Tensor) {
    let hidden = try layer("conv_new")(map)
    let grid = RoIGrid(height: k, width: k, spatialScale: 1 / Float(stride))
    func votes(_ name: String) throws -> Tensor {
      try layer(name)(hidden).psRoIPool(rois, grid: grid).mean(axes: [2, 3])
    }
    return (try votes("cls_maps"), try votes("box_maps"))
  }
}
