#if canImport(Glibc)
  import Glibc
#endif

extension Kernels {
  /// Largest dw, dh that decoding follows: log(1000 / 16), as in torchvision and detectron2.
  public static let boxDeltaLimit: Float = 4.135_166_6

  /// Faster R-CNN box code of `boxes` relative to `anchors`, out (n, 4):
  /// `wx (x - xa) / wa, wy (y - ya) / ha, ww log(w / wa), wh log(h / ha)` with centres x, y.
  /// - Parameters:
  ///   - weights: (wx, wy, ww, wh): 1 for the RPN; 1 / standard deviations, (10, 10, 5, 5), for RoIs.
  ///   - legacy: widths are x2 - x1 + 1 (py-faster-rcnn).
  public static func encodeBoxes(
    _ boxes: UnsafePointer<Float>, anchors: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ n: Int,
    weights: SIMD4<Float> = SIMD4(repeating: 1), legacy: Bool = false
  ) {
    let extent: Float = legacy ? 1 : 0
    parallelFor(count: n, grain: 1024) { range in
      for i in range {
        let (anchor, box, code) = (anchors + 4 * i, boxes + 4 * i, out + 4 * i)
        let anchorWidth = anchor[2] - anchor[0] + extent
        let anchorHeight = anchor[3] - anchor[1] + extent
        let width = box[2] - box[0] + extent
        let height = box[3] - box[1] + extent
        let dx = (box[0] + 0.5 * width) - (anchor[0] + 0.5 * anchorWidth)
        let dy = (box[1] + 0.5 * height) - (anchor[1] + 0.5 * anchorHeight)
        code[0] = weights[0] * dx / anchorWidth
        code[1] = weights[1] * dy / anchorHeight
        code[2] = weights[2] * log(width / anchorWidth)
        code[3] = weights[3] * log(height / anchorHeight)
      }
    }
  }

  /// Inverse of `encodeBoxes`: deltas (n, classes, 4) and anchors (n, 4) to boxes (n, classes, 4).
  /// - Parameter limit: dw and dh are cut off here before exp, so that it cannot overflow.
  public static func decodeBoxes(
    _ deltas: UnsafePointer<Float>, anchors: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ n: Int, classes: Int = 1,
    weights: SIMD4<Float> = SIMD4(repeating: 1), limit: Float = boxDeltaLimit, legacy: Bool = false
  ) {
    let extent: Float = legacy ? 1 : 0
    parallelFor(count: n, grain: max(1, 2048 / max(classes, 1))) { range in
      for i in range {
        let anchor = anchors + 4 * i
        let anchorWidth = anchor[2] - anchor[0] + extent
        let anchorHeight = anchor[3] - anchor[1] + extent
        let centreX = anchor[0] + 0.5 * anchorWidth
        let centreY = anchor[1] + 0.5 * anchorHeight
        for k in 0..<classes {
          let delta = deltas + (i * classes + k) * 4
          let box = out + (i * classes + k) * 4
          let x = delta[0] / weights[0] * anchorWidth + centreX
          let y = delta[1] / weights[1] * anchorHeight + centreY
          let halfWidth = 0.5 * (fastExp(smaller(limit, delta[2] / weights[2])) * anchorWidth)
          let halfHeight = 0.5 * (fastExp(smaller(limit, delta[3] / weights[3])) * anchorHeight)
          box[0] = x - halfWidth
          box[1] = y - halfHeight
          box[2] = x + halfWidth - extent
          box[3] = y + halfHeight - extent
        }
      }
    }
  }
}
