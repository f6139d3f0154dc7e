#if canImport(Glibc)
  import Glibc
#endif

extension Kernels {
  /// One step of SGD as `torch.optim.SGD` takes it, in place.
  ///
  /// `g = gradient + weightDecay * parameter`; with momentum, `buffer = momentum * buffer +
  /// (1 - dampening) * g` (on the first step `buffer = g`), and the direction is the buffer, or
  /// `g + momentum * buffer` with Nesterov.
  /// - Parameters:
  ///   - buffer: momentum buffer, nil when `momentum` is 0.
  ///   - firstStep: the buffer holds nothing yet.
  public static func sgdStep(
    _ parameter: UnsafeMutablePointer<Float>, _ gradient: UnsafePointer<Float>,
    buffer: UnsafeMutablePointer<Float>?, _ n: Int, learningRate: Float, momentum: Float = 0,
    dampening: Float = 0, weightDecay: Float = 0, nesterov: Bool = false, firstStep: Bool = false
  ) {
    let keep: Float = firstStep ? 0 : momentum
    let fresh: Float = firstStep ? 1 : 1 - dampening
    parallelFor(count: n, grain: elementGrain) { range in
      let weight = parameter + range.lowerBound
      let slope = gradient + range.lowerBound
      guard let buffer, momentum != 0 else {
        for i in 0..<range.count {
          weight[i] -= learningRate * (slope[i] + weightDecay * weight[i])
        }
        return
      }
      let velocity = buffer + range.lowerBound
      if firstStep { velocity.update(repeating: 0, count: range.count) }
      if nesterov {
        for i in 0..<range.count {
          let g = slope[i] + weightDecay * weight[i]
          let v = keep * velocity[i] + fresh * g
          velocity[i] = v
          weight[i] -= learningRate * (g + momentum * v)
        }
      } else {
        for i in 0..<range.count {
          let v = keep * velocity[i] + fresh * (slope[i] + weightDecay * weight[i])
          velocity[i] = v
          weight[i] -= learningRate * v
        }
      }
    }
  }

  /// One step of Adam (`decoupled` = false, `torch.optim.Adam`) or AdamW (true), in place.
  /// - Parameters:
  ///   - first, second: running means of the gradient and of its square, 0 before the first step.
  ///   - step: number of this step, from 1.
  public static func adamStep(
    _ parameter: UnsafeMutablePointer<Float>, _ gradient: UnsafePointer<Float>,
    first: UnsafeMutablePointer<Float>, second: UnsafeMutablePointer<Float>, _ n: Int,
    step: Int, learningRate: Float, beta1: Float = 0.9, beta2: Float = 0.999, eps: Float = 1e-8,
    weightDecay: Float = 0, decoupled: Bool = false
  ) {
    // Bias corrections in double: 1 - 0.999^t loses digits in single precision.
    let correction1 = 1 - pow(Double(beta1), Double(max(step, 1)))
    let correction2 = 1 - pow(Double(beta2), Double(max(step, 1)))
    let rate = Float(Double(learningRate) / correction1)
    let rootScale = Float(1 / correction2.squareRoot())
    let decay: Float = decoupled ? 1 - learningRate * weightDecay : 1
    let penalty: Float = decoupled ? 0 : weightDecay
    let (fresh1, fresh2) = (1 - beta1, 1 - beta2)
    parallelFor(count: n, grain: elementGrain / 2) { range in
      let weight = parameter + range.lowerBound
      let slope = gradient + range.lowerBound
      let mean = first + range.lowerBound
      let square = second + range.lowerBound
      for i in 0..<range.count {
        let w = weight[i] * decay
        let g = slope[i] + penalty * w
        let m = mean[i] + fresh1 * (g - mean[i])
        let v = beta2 * square[i] + fresh2 * g * g
        mean[i] = m
        square[i] = v
        weight[i] = w - rate * m / (v * fastInverseRoot(v) * rootScale + eps)
      }
    }
  }

  /// `adamStep` with decoupled weight decay: `torch.optim.AdamW`.
  public static func adamWStep(
    _ parameter: UnsafeMutablePointer<Float>, _ gradient: UnsafePointer<Float>,
    first: UnsafeMutablePointer<Float>, second: UnsafeMutablePointer<Float>, _ n: Int,
    step: Int, learningRate: Float, beta1: Float = 0.9, beta2: Float = 0.999, eps: Float = 1e-8,
    weightDecay: Float = 0.01
  ) {
    adamStep(
      parameter, gradient, first: first, second: second, n, step: step,
      learningRate: learningRate, beta1: beta1, beta2: beta2, eps: eps, weightDecay: weightDecay,
      decoupled: true)
  }

  /// Sum of x[i]^2 in double precision across fixed blocks (for clipping by the norm).
  public static func sumOfSquares(_ x: UnsafePointer<Float>, _ n: Int) -> Double {
    reduceChunks(count: n) { sumTerms($0) { x[$0] * x[$0] } }
  }

  /// x[i] *= factor.
  public static func scale(_ x: UnsafeMutablePointer<Float>, _ n: Int, by factor: Float) {
    parallelFor(count: n, grain: elementGrain) { range in
      let target = x + range.lowerBound
      for i in 0..<range.count { target[i] *= factor }
    }
  }

  /// Whether some element is an infinity or a NaN.
  public static func anyNonFinite(_ x: UnsafePointer<Float>, _ n: Int) -> Bool {
    // x * 0 is 0 for every finite number and NaN otherwise; NaN survives a sum.
    reduceChunks(count: n) { sumTerms($0) { x[$0] * 0 } } != 0
  }
}
