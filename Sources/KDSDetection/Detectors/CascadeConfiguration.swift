import KDSTensor

/// The stages of a Cascade R-CNN (Cai & Vasconcelos 2018), one entry per stage in each list.
public struct CascadeConfiguration: Codable, Equatable {
  /// A region at or above this IoU with a box is positive.
  public var ious: [Float] = [0.5, 0.6, 0.7]
  /// Standard deviations that regression targets are divided by: boxes come closer stage by stage.
  public var box_stds: [[Float]] = [
    [0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067],
  ]
  /// Weight of each stage's losses.
  public var loss_weights: [Float] = [1, 0.5, 0.25]

  public init() {}

  /// - Throws: `KDSError.argument` naming the field that cannot be.
  func check() throws {
    guard (1...8).contains(ious.count), box_stds.count == ious.count,
      loss_weights.count == ious.count
    else {
      throw KDSError.argument(
        "cascade: \(ious.count) ious, \(box_stds.count) box_stds and \(loss_weights.count) "
          + "loss_weights must be as many as stages, 1 to 8")
    }
    guard ious.allSatisfy({ $0 > 0 && $0 <= 1 }), loss_weights.allSatisfy({ $0 >= 0 }) else {
      throw KDSError.argument(
        "cascade: ious \(ious) must be in (0, 1] and loss_weights \(loss_weights) not negative")
    }
  }
}

extension FasterRCNNConfiguration {
  /// A Cascade R-CNN on a feature pyramid: `pyramid`, with smooth L1 turning linear at 1 as published.
  public static var cascaded: FasterRCNNConfiguration {
    var all = pyramid
    (all.detector, all.cascade) = ("cascade_rcnn", CascadeConfiguration())
    all.roi.smooth_l1_beta = 1
    return all
  }

  /// `cascaded` with a mask branch per stage.
  public static var maskedCascade: FasterRCNNConfiguration {
    var all = cascaded
    all.mask = MaskConfiguration()
    return all
  }
}
