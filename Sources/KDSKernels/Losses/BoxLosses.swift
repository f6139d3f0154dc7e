extension Kernels {
  /// Teacher-bounded regression of Chen et al. 2017, eq. 4, box by box: with e = squared L2 distance
  /// to the target over the 4 offsets, `e_s` if `e_s + margin > e_t` (strictly), else 0.
  ///
  /// Gradient to the student only: 2 scale (student - target) for boxes that count, 0 for the
  /// others; the comparison itself passes no gradient.
  /// - Parameters:
  ///   - student, teacher, target: (count, 4), in the same units.
  ///   - weights: (count) or nil for 1.
  public static func teacherBoundedRegression(
    student: UnsafePointer<Float>, teacher: UnsafePointer<Float>, target: UnsafePointer<Float>,
    _ count: Int, margin: Float, weights: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: count, chunk: 4096) { range in
      var total = 0.0
      for i in range {
        let y = load4(target + 4 * i)
        let miss = load4(student + 4 * i) - y
        let bound = load4(teacher + 4 * i) - y
        let own = (miss * miss).sum()
        let active = own + margin > (bound * bound).sum()
        let weight = weights?[i] ?? 1
        if active { total += Double(weight) * Double(own) }
        if let gradient {
          let factor: Float = active ? 2 * scale * weight : 0
          for k in 0..<4 { gradient[4 * i + k] = active ? factor * miss[k] : 0 }
        }
      }
      return total
    }
  }

  /// Generalised IoU loss of box pairs, sum of 1 - GIoU (Rezatofighi et al., 2019;
  /// `torchvision.ops.generalized_box_iou_loss` with the same eps). Gradient to `prediction`.
  /// - Parameters:
  ///   - prediction, target: (count, 4) x1 y1 x2 y2.
  ///   - weights: (count) or nil for 1.
  public static func giouLoss(
    _ prediction: UnsafePointer<Float>, _ target: UnsafePointer<Float>, _ count: Int,
    eps: Float = 1e-7, weights: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: count, chunk: 2048) { range in
      var total = 0.0
      for i in range {
        let weight = weights?[i] ?? 1
        let (value, slope) = giouTerm(load4(prediction + 4 * i), load4(target + 4 * i), eps)
        total += Double(weight) * Double(value)
        if let gradient {
          for k in 0..<4 { gradient[4 * i + k] = scale * weight * slope[k] }
        }
      }
      return total
    }
  }
}

@inline(__always)
private func load4(_ pointer: UnsafePointer<Float>) -> SIMD4<Float> {
  UnsafeRawPointer(pointer).loadUnaligned(as: SIMD4<Float>.self)
}

/// 1 where a > b, 1/2 where equal, 0 elsewhere: the derivative of max(a, b) as PyTorch shares it.
@inline(__always)
private func share(_ a: Float, _ b: Float) -> Float { a > b ? 1 : (a == b ? 0.5 : 0) }

/// 1 - GIoU of a pair (p, t) and its derivative by p.
@inline(__always)
private func giouTerm(
  _ p: SIMD4<Float>, _ t: SIMD4<Float>, _ eps: Float
) -> (value: Float, derivative: SIMD4<Float>) {
  let width = p[2] - p[0]
  let height = p[3] - p[1]
  let overlapWidth = smaller(p[2], t[2]) - larger(p[0], t[0])
  let overlapHeight = smaller(p[3], t[3]) - larger(p[1], t[1])
  let touches = overlapWidth > 0 && overlapHeight > 0
  let inter = touches ? overlapWidth * overlapHeight : 0
  let union = width * height + (t[2] - t[0]) * (t[3] - t[1]) - inter
  let hullWidth = larger(p[2], t[2]) - smaller(p[0], t[0])
  let hullHeight = larger(p[3], t[3]) - smaller(p[1], t[1])
  let hull = hullWidth * hullHeight
  let value = 1 - (inter / (union + eps) - (hull - union) / (hull + eps))

  let byUnion = inter / ((union + eps) * (union + eps)) - 1 / (hull + eps)
  let byHull = (union + eps) / ((hull + eps) * (hull + eps))
  // The union falls as the intersection grows.
  let byInter: Float = touches ? -1 / (union + eps) - byUnion : 0
  let derivative = SIMD4<Float>(
    -byUnion * height - byInter * overlapHeight * share(p[0], t[0])
      - byHull * hullHeight * share(t[0], p[0]),
    -byUnion * width - byInter * overlapWidth * share(p[1], t[1])
      - byHull * hullWidth * share(t[1], p[1]),
    byUnion * height + byInter * overlapHeight * share(t[2], p[2])
      + byHull * hullHeight * share(p[2], t[2]),
    byUnion * width + byInter * overlapWidth * share(t[3], p[3])
      + byHull * hullWidth * share(p[3], t[3]))
  return (value, derivative)
}
