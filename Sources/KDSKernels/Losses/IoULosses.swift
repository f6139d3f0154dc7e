extension Kernels {
  /// - log IoU of box pairs (Yu et al. 2016; mmdet's `IoULoss`), the IoU and the union at least
  /// `eps`, summed. Gradient to `prediction`, 0 where the IoU is below `eps`.
  /// - Parameters:
  ///   - prediction, target: (count, 4) x1 y1 x2 y2.
  ///   - weights: (count) or nil for 1.
  public static func logIoULoss(
    _ prediction: UnsafePointer<Float>, _ target: UnsafePointer<Float>, _ count: Int,
    eps: Float = 1e-6, weights: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: count, chunk: 2048) { range in
      var total = 0.0
      for i in range {
        let weight = weights?[i] ?? 1
        let (value, slope) = logIoUTerm(prediction + 4 * i, target + 4 * i, eps)
        total += Double(weight) * Double(value)
        if let gradient {
          let factor = scale * weight
          for k in 0..<4 { gradient[4 * i + k] = factor * slope[k] }
        }
      }
      return total
    }
  }
}

/// 1 where a > b, 1/2 where equal, 0 elsewhere: the derivative of max(a, b) as PyTorch shares it.
@inline(__always)
private func share(_ a: Float, _ b: Float) -> Float { a > b ? 1 : (a == b ? 0.5 : 0) }

/// - log IoU of a pair (p, t) and its derivative by p.
@inline(__always)
private func logIoUTerm(
  _ p: UnsafePointer<Float>, _ t: UnsafePointer<Float>, _ eps: Float
) -> (value: Float, derivative: SIMD4<Float>) {
  let (width, height) = (p[2] - p[0], p[3] - p[1])
  let overlapWidth = smaller(p[2], t[2]) - larger(p[0], t[0])
  let overlapHeight = smaller(p[3], t[3]) - larger(p[1], t[1])
  let touches = overlapWidth > 0 && overlapHeight > 0
  let inter = touches ? overlapWidth * overlapHeight : 0
  let sum = width * height + (t[2] - t[0]) * (t[3] - t[1]) - inter
  let union = sum < eps ? eps : sum
  let iou = inter / union
  let value = -fastLog(iou < eps ? eps : iou)
  if iou < eps { return (value, SIMD4(repeating: 0)) }
  // -d log(inter / union) = d union / union - d inter / inter, and the union falls as inter grows.
  let byUnion: Float = sum < eps ? 0 : 1 / union
  let byInter = -1 / inter - byUnion
  let derivative = SIMD4<Float>(
    -byUnion * height - byInter * overlapHeight * share(p[0], t[0]),
    -byUnion * width - byInter * overlapWidth * share(p[1], t[1]),
    byUnion * height + byInter * overlapHeight * share(t[2], p[2]),
    byUnion * width + byInter * overlapWidth * share(t[3], p[3]))
  return (value, derivative)
}
