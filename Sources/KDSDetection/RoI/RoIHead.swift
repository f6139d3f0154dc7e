import KDSKernels
import KDSNN
import KDSTensor

/// Sizes of the region head after defaults are filled in.
public struct RoIHeadSizes {
  public let channels, stride, poolSize, classes: Int
  public let hidden: [Int]
  public let dropout: Float
}

/// Pools regions from a map and classifies them; box offsets per class (Girshick 2015).
///
/// Names follow torchvision: `box_head.fc6`, `box_head.fc7`, …, `box_predictor.cls_score`,
/// `box_predictor.bbox_pred`.
public final class RoIHead: Module {
  public let sizes: RoIHeadSizes
  public let configuration: RoIConfiguration
  private let boxHead = Module()
  private let predictor = Module()

  public init(
    sizes: RoIHeadSizes, configuration: RoIConfiguration, _ initializer: Initializer
  ) throws {
    guard ["align", "pool"].contains(configuration.pool) else {
      throw KDSError.argument(
        "roi.pool: \"\(configuration.pool)\" is neither \"align\" nor \"pool\"")
    }
    guard configuration.box_std.count == 4, configuration.box_std.allSatisfy({ $0 > 0 }) else {
      throw KDSError.argument("roi.box_std: \(configuration.box_std) must be 4 positive numbers")
    }
    self.sizes = sizes
    self.configuration = configuration
    super.init()
    child("box_head", boxHead)
    child("box_predictor", predictor)
    var inputs = sizes.channels * sizes.poolSize * sizes.poolSize
    for (index, outputs) in sizes.hidden.enumerated() {
      boxHead.child("fc\(6 + index)", try Linear(inputs, outputs, activation: .relu, initializer))
      inputs = outputs
    }
    // Published deviations: 0.01 for classes, 0.001 for boxes.
    predictor.child(
      "cls_score", try Linear(inputs, sizes.classes, deviation: 0.01, initializer))
    predictor.child(
      "bbox_pred", try Linear(inputs, 4 * sizes.classes, deviation: 0.001, initializer))
  }

  /// Class logits (R, K) and offsets (R, 4K) of the regions (R, 5).
  ///
  /// - Parameter dropoutSeed: draws the dropped units in training; nil keeps all.
  public func callAsFunction(
    _ feature: Tensor, _ rois: Tensor, dropoutSeed: UInt64? = nil
  ) throws -> (logits: Tensor, deltas: Tensor) {
    let grid = RoIGrid(
      height: sizes.poolSize, width: sizes.poolSize, spatialScale: 1 / Float(sizes.stride),
      samplingRatio: configuration.sampling_ratio, aligned: false)
    let pooled =
      configuration.pool == "align"
      ? try feature.roiAlign(rois, grid: grid) : try feature.roiPool(rois, grid: grid)
    var hidden = try pooled.reshaped([rois.shape[0], pooled.shape[1] * grid.height * grid.width])
    for index in sizes.hidden.indices {
      hidden = try boxHead.layer("fc\(6 + index)")(hidden)
      if isTraining, sizes.dropout > 0, let dropoutSeed {
        hidden = try hidden.dropout(
          probability: sizes.dropout, seed: dropoutSeed, stream: RandomStream.dropout(layer: index))
      }
    }
    return (try predictor.layer("cls_score")(hidden), try predictor.layer("bbox_pred")(hidden))
  }
}
