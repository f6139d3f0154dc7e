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
    let base = baseAnchors
    var boxes = [Float]()
    boxes.reserveCapacity(height * width * base.count)
    for y in 0..<height {
      for x in 0..<width {
        let (dx, dy) = (Float(x * stride), Float(y * stride))
        for anchor in 0..<count {
          boxes.append(base[4 * anchor] + dx)
          boxes.append(base[4 * anchor + 1] + dy)
          boxes.append(base[4 * anchor + 2] + dx)
          boxes.append(base[4 * anchor + 3] + dy)
        }
      }
    }
    return boxes
  }
}
