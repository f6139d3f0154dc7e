import KDSKernels
import KDSTensor

/// Anchors of one level: every size with every ratio at every cell, as torchvision's `AnchorGenerator`.
///
/// Base anchors are centred on 0 and rounded; cell (y, x) moves them by (x, y) · stride. Order: cells
/// row by row, in a cell ratios outside, sizes inside.
public struct AnchorGenerator: Equatable {
  /// Square roots of the areas, in input pixels.
  public let sizes: [Float]
  /// Height / width.
  public let ratios: [Float]

  public init(sizes: [Float], ratios: [Float]) throws {
    guard !sizes.isEmpty, !ratios.isEmpty, (sizes + ratios).allSatisfy({ $0 > 0 && $0.isFinite })
    else {
      throw KDSError.argument(
        "anchors: sizes \(sizes) and ratios \(ratios) must be positive numbers")
    }
    self.sizes = sizes
    self.ratios = ratios
  }

  /// Anchors per cell.
  public var count: Int { sizes.count * ratios.count }

  /// (count, 4) around 0.
  public var baseAnchors: [Float] {
    ratios.flatMap { ratio -> [Float] in
      let height = ratio.squareRoot()
      return sizes.flatMap { size -> [Float] in
        let (w, h) = (size / height, size * height)
        return [-w / 2, -h / 2, w / 2, h / 2].map { $0.rounded(.toNearestOrEven) }
      }
    }
  }

  /// (height · width · count, 4) xyxy in input pixels, row-major over the map.
  public func grid(height: Int, width: Int, stride: Int) -> [Float] {
    grid(height: height, width: width, step: Size2(stride))
  }

  /// The same with steps of its own for each axis.
  public func grid(height: Int, width: Int, step: Size2) -> [Float] {
    let base = baseAnchors
    return [Float](unsafeUninitializedCapacity: height * width * base.count) { boxes, filled in
      for y in 0..<height {
        for x in 0..<width {
          let (dx, dy) = (Float(x * step.width), Float(y * step.height))
          for side in base.indices {
            boxes[filled] = base[side] + (side % 2 == 0 ? dx : dy)
            filled += 1
          }
        }
      }
    }
  }
}
