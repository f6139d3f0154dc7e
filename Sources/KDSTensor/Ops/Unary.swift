import KDSKernels

extension Tensor {
  /// f of every element, in the tensor's own layout.
  func mapped(_ name: String, _ function: UnaryFunction) throws -> Tensor {
    if layout == .half { return try widened().mapped(name, function) }
    try requireFloats(name, [self])
    let result = try uninitializedLike()
    Kernels.unary(function, floats, result.floats, storedCount)
    if !function.keepsZero { result.clearChannelPadding() }
    let needs = function.derivativeNeeds
    let input = needs == .input ? detachedView() : nil
    let output = needs == .output ? result.detachedView() : nil
    return Tape.record(result, name, [self]) { gradient in
      let toInput = try gradient.uninitializedLike()
      Kernels.unaryGradient(
        function, input: (input ?? gradient).floats, output: (output ?? gradient).floats,
        gradient.floats, toInput.floats, toInput.storedCount)
      // Where the derivative is infinite at 0, the padding would become 0 * inf.
      toInput.clearChannelPadding()
      return [toInput]
    }
  }

  /// -x
  public func negated() throws -> Tensor { try mapped("neg", .negate) }
  /// e^x
  public func exp() throws -> Tensor { try mapped("exp", .exp) }
  /// Natural logarithm; -inf at 0, NaN below.
  public func log() throws -> Tensor { try mapped("log", .log) }
  /// Square root; NaN below 0, gradient inf at 0.
  public func sqrt() throws -> Tensor { try mapped("sqrt", .sqrt) }
  /// |x|; gradient 0 at 0.
  public func abs() throws -> Tensor { try mapped("abs", .abs) }
  /// max(x, 0); NaN stays NaN; gradient 0 at 0.
  public func relu() throws -> Tensor {
    layout == .half ? try reluHalf() : try mapped("relu", .relu)
  }
  /// 1 / (1 + e^-x)
  public func sigmoid() throws -> Tensor { try mapped("sigmoid", .sigmoid) }
  /// Hyperbolic tangent.
  public func tanh() throws -> Tensor { try mapped("tanh", .tanh) }
  /// x Φ(x) with the standard normal distribution Φ (Hendrycks and Gimpel 2016), not approximated.
  public func gelu() throws -> Tensor { try mapped("gelu", .gelu) }
  /// x²
  public func squared() throws -> Tensor { try mapped("square", .square) }

  /// min(max(x, low), high); the gradient passes where low <= x <= high.
  ///
  /// - Throws: `KDSError.argument` when `min` is above `max`.
  public func clamped(min low: Float = -.infinity, max high: Float = .infinity) throws -> Tensor {
    if !(low <= high) {
      throw KDSError.argument("clamp: min \(low) must not be above max \(high)")
    }
    return try mapped("clamp", .clamp(low, high))
  }

  /// x ^ exponent; NaN for a negative x with a fractional exponent.
  public func raised(to exponent: Float) throws -> Tensor {
    try mapped("pow", .power(exponent))
  }

  /// x + value
  public func adding(_ value: Float) throws -> Tensor { try mapped("add", .offset(value)) }
  /// x - value
  public func subtracting(_ value: Float) throws -> Tensor { try mapped("sub", .offset(-value)) }
  /// value - x
  public func subtracted(from value: Float) throws -> Tensor {
    try negated().adding(value)
  }
  /// x * value
  public func multiplied(by value: Float) throws -> Tensor { try mapped("mul", .scale(value)) }
  /// x / value
  public func divided(by value: Float) throws -> Tensor { try mapped("div", .scale(1 / value)) }
  /// value / x
  public func dividing(_ value: Float) throws -> Tensor { try mapped("div", .reciprocal(value)) }

  /// 1 where the comparison with `value` holds, else 0. No gradient.
  public func compared(_ comparison: Comparison, to value: Float) throws -> Tensor {
    try Tape.withoutGrad { try mapped(comparison.rawValue, .compare(comparison, value)) }
  }

  /// The same numbers as floats or as integers (rounded towards zero). No gradient.
  ///
  /// - Throws: `KDSError.argument` for a float that is not finite or does not fit into int64.
  public func converted(to wanted: DType) throws -> Tensor {
    if dtype == wanted { return self }
    let source = try detached().plain()
    let result = try Tensor(uninitialized: shape, dtype: wanted)
    for index in 0..<count {
      if wanted == .float32 {
        result.floats[index] = Float(source.integers[index])
      } else {
        let value = source.floats[index]
        guard value.magnitude < 0x1p63 else {
          throw KDSError.argument("cast: \(value) does not fit into int64")
        }
        result.integers[index] = Int64(value)
      }
    }
    return result
  }
}
