/// Which values a quantizer of feature maps may give, for a step s.
public enum QuantizerForm: String, CaseIterable {
  /// {0, s, 2s, 3s, …}: Wei et al. 2018, all experiments.
  case uniform
  /// {0, s, 2s, 4s, 8s, …}: fine near 0, coarse for strong responses (their Table 6).
  case powerOfTwo = "power_of_two"
}

extension Kernels {
  /// The quantizer of feature maps (Wei et al. 2018, equations 1 to 3), element by element:
  ///
  ///     Q(f) = β  where  (α + β) / 2 < f ≤ (β + γ) / 2,  α < β < γ neighbours in D
  ///
  /// D as `form` says; ties go down, everything up to s / 2 (all negatives) becomes 0, nothing is
  /// clipped above. Uniform: Q(f) = s · max(0, ⌈f/s − 1/2⌉).
  ///
  /// - Returns: how many inputs or results are NaN or infinite; the caller reports them.
  public static func quantize(
    _ form: QuantizerForm, step: Float, _ x: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) -> Int {
    Int(
      reduceChunks(count: count) { range in
        let (from, to) = (x + range.lowerBound, out + range.lowerBound)
        switch form {
        case .uniform: mapElements(from, to, range.count) { uniformCell($0, step) }
        case .powerOfTwo: mapElements(from, to, range.count) { powerCell($0, step) }
        }
        return Double(notFinite(from, range.count) + notFinite(to, range.count))
      })
  }

  /// out[i] = g[i] where x[i] > 0, else 0: the derivative of a ReLU in front of the quantizer.
  public static func gateByPositive(
    input x: UnsafePointer<Float>, _ g: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      let lower = range.lowerBound
      zipElements(x + lower, g + lower, out + lower, range.count) { $0 > 0 ? $1 : 0 }
    }
  }

  /// Whole steps, exactly: ⌈t − 1/2⌉ without the rounding of t − 1/2, which is wrong from 2²³ on.
  @inline(__always)
  private static func uniformCell(_ value: Float, _ step: Float) -> Float {
    let steps = value / step
    let below = steps.rounded(.down)
    let nearest = below + (steps - below > 0.5 ? 1 : 0)
    let cell = step * (nearest > 0 ? nearest : 0)
    // From here on neighbouring floats are whole steps apart.
    return steps >= 0x1p23 ? value : cell
  }

  @inline(__always)
  private static func powerCell(_ value: Float, _ step: Float) -> Float {
    let steps = value / step
    // The power of two at or below, by the exponent's bits alone.
    let power = Float(bitPattern: steps.bitPattern & 0x7F80_0000)
    let nearest = power * (steps > 1.5 * power ? 2 : 1)
    let small: Float = steps > 0.5 ? 1 : 0
    return step * (steps < 1 ? small : nearest)
  }

  private static func notFinite(_ x: UnsafePointer<Float>, _ count: Int) -> Int {
    var found: Int32 = 0
    for index in 0..<count {
      found &+= x[index].bitPattern & 0x7F80_0000 == 0x7F80_0000 ? 1 : 0
    }
    return Int(found)
  }
}
