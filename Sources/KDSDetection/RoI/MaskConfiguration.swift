import KDSTensor

/// The mask branch of a two-stage detector (He et al. 2017); defaults are torchvision's.
public struct MaskConfiguration: Codable, Equatable {
  /// Bins per side that a region is pooled to; a mask has twice as many.
  public var pool_size = 14
  /// Sampling points per bin side of RoIAlign; 0 adapts to the region.
  public var sampling_ratio = 2
  /// Channels of the 3×3 convolutions.
  public var convs = [256, 256, 256, 256]
  /// Channels of the transposed convolution that doubles the side.
  public var channels = 256
  /// Normalization behind the convolutions: "none", "batch", "frozen_batch" or "group".
  public var norm = "none"

  public init() {}

  /// - Throws: `KDSError.argument` naming the field that cannot be.
  func check() throws {
    guard (1...64).contains(pool_size), sampling_ratio <= 64 else {
      throw KDSError.argument(
        "mask: pool_size \(pool_size) must be 1 to 64 and sampling_ratio \(sampling_ratio) at most 64"
      )
    }
    guard (convs + [channels]).allSatisfy({ (1...1 << 14).contains($0) }) else {
      throw KDSError.argument(
        "mask: convs \(convs) and channels \(channels) must be channels from 1 to 16384")
    }
  }
}
