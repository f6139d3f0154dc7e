/// What stands between backbone and heads.
public struct NeckConfiguration: Codable, Equatable {
  /// "none", "fpn" or "deconv" (one map, at half the stride of the backbone's last).
  public var kind = "none"
  /// Channels of every level.
  public var channels = 256
  /// Coarser levels above the backbone's last: "none"; "pool" (one, by subsampling: two-stage detectors);
  /// "p6p7" (two 3×3 convolutions at stride 2 on the last pyramid level: RetinaNet); "p6p7_c5" (the same
  /// on the backbone's last map).
  public var extra = "pool"
  /// Normalization behind its convolutions: "none", "batch", "frozen_batch" or "group".
  public var norm = "none"
  /// The finest backbone feature that becomes a level; empty takes the first after `skip`.
  public var from = ""
  /// Backbone features left out, from the finest, where `from` is empty.
  public var skip = 0

  public init() {}
}
