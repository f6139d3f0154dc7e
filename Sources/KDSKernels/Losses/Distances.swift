// Every loss returns the plain sum over its elements; `scale` multiplies the gradient only. A mean
// is the sum times 1 / n with `scale` = 1 / n.

extension Kernels {
  /// sum (a - b)^2; gradient to `a`: 2 scale (a - b). Chen et al. 2017, eq. 5; FitNets.
  public static func squaredDifference(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ n: Int, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: n) {
      elementwiseLoss($0, scale, gradient) { i in
        let d = a[i] - b[i]
        return (d * d, 2 * d)
      }
    }
  }

  /// sum |a - b|; gradient to `a`: scale sign(a - b), 0 where equal. Chen et al. 2017, eq. 6.
  public static func absoluteDifference(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ n: Int, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: n) {
      elementwiseLoss($0, scale, gradient) { i in
        let d = a[i] - b[i]
        let sign: Float = d > 0 ? 1 : (d < 0 ? -1 : 0)
        return (abs(d), sign)
      }
    }
  }

  /// Smooth L1 (Girshick, "Fast R-CNN"; `torch.nn.SmoothL1Loss`): with d = prediction - target,
  /// d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere. beta = 0 is L1.
  /// The form with sigma has beta = 1 / sigma^2.
  public static func smoothL1(
    _ prediction: UnsafePointer<Float>, _ target: UnsafePointer<Float>, _ n: Int, beta: Float,
    scale: Float = 1, gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    if !(beta > 0) {
      return absoluteDifference(prediction, target, n, scale: scale, gradient: gradient)
    }
    let inverse = 1 / beta
    let half = 0.5 * beta
    return reduceChunks(count: n) {
      elementwiseLoss($0, scale, gradient) { i in
        let d = prediction[i] - target[i]
        let size = abs(d)
        let sign: Float = d > 0 ? 1 : -1
        let inside = size < beta
        return (inside ? 0.5 * d * d * inverse : size - half, inside ? d * inverse : sign)
      }
    }
  }
}
