import KDSKernels

extension Tensor {
  /// +1 where x ≥ 0, −1 below (NaN gives +1).
  ///
  /// The gradient is the straight-through estimator's: it passes where |x| ≤ 1, with `strict` where
  /// |x| < 1, as in the code of XNOR-Net's authors.
  /// - Layout: any, kept; bfloat16 is widened.
  public func binarySign(strict: Bool = false) throws -> Tensor {
    if layout == .half { return try widened().binarySign(strict: strict) }
    try requireFloats("binary_sign", [self])
    let result = try uninitializedLike()
    Kernels.signs(floats, result.floats, storedCount)
    result.clearChannelPadding()
    let input = detachedView()
    return Tape.record(result, "binary_sign", [self]) { gradient in
      let toInput = try gradient.uninitializedLike()
      Kernels.signsGradient(
        input.floats, gradient.floats, toInput.floats, toInput.storedCount, strict: strict)
      return [toInput]
    }
  }

  /// Binary filters α · sign(W) with α = mean |W| of each filter (Rastegari et al. 2016, equations 2 to 6).
  ///
  /// - Shapes: self (K, C, kh, kw) or (K, n); result the same, plain.
  /// - Parameter rule: the gradient that the real-valued weights get.
  /// - Throws: `KDSError.shape` for a tensor without filters.
  public func binaryFilters(_ rule: BinaryGradient = .paper) throws -> Tensor {
    try requireFloats("binary_filters", [self])
    let weight = try plain()
    let geometry = try FilterGeometry(weight, "binary_filters")
    let scales = try Tensor(uninitialized: [geometry.filters])
    Kernels.filterScales(weight.floats, geometry, scales.floats)
    let result = try Tensor(uninitialized: weight.shape)
    Kernels.binaryFilters(weight.floats, scales: scales.floats, geometry, result.floats)
    let view = weight.detachedView()
    return Tape.record(result, "binary_filters", [weight]) { gradient in
      let toWeight = try Tensor(uninitialized: view.shape)
      Kernels.binaryFiltersGradient(
        view.floats, scales: scales.floats, try gradient.plain().floats, geometry, rule,
        toWeight.floats)
      return [toWeight]
    }
  }

  /// Numbers in [−1, 1] of 2ᵏ levels (Rastegari et al. 2016, section 3.2); one bit gives signs.
  ///
  /// Values outside are limited first; ties go up; the gradient passes where |x| ≤ 1.
  /// - Throws: `KDSError.argument` for bits outside 1...16.
  public func quantizedBits(_ bits: Int) throws -> Tensor {
    if layout == .half { return try widened().quantizedBits(bits) }
    try requireFloats("quantize_bits", [self])
    guard (1...16).contains(bits) else {
      throw KDSError.argument("quantize_bits: bits \(bits) must be 1 to 16")
    }
    let result = try uninitializedLike()
    Kernels.quantizeBits(floats, result.floats, storedCount, bits: bits)
    result.clearChannelPadding()
    let input = detachedView()
    return Tape.record(result, "quantize_bits", [self]) { gradient in
      let toInput = try gradient.uninitializedLike()
      Kernels.signsGradient(
        input.floats, gradient.floats, toInput.floats, toInput.storedCount, strict: false)
      return [toInput]
    }
  }

  /// The preparation of XNOR-Net's authors before each step, in place: every tap's mean over the input
  /// channels is taken off, then weights are limited to [−1, 1]. Plain filters only.
  public func centerFilters() throws {
    let geometry = try FilterGeometry(self, "center_filters")
    Kernels.centerFilters(floats, geometry)
    markChanged()
  }
}

extension FilterGeometry {
  /// Of (K, C, kh, kw), or (K, n) as one tap.
  init(_ weight: Tensor, _ name: String) throws {
    let shape = weight.shape
    guard shape.count == 4 || shape.count == 2, weight.count > 0, weight.layout == .plain else {
      throw KDSError.shape("\(name): weight must be (K, C, kh, kw) or (K, n), got \(shape)")
    }
    self.init(
      filters: shape[0], channels: shape[1], taps: shape.count == 4 ? shape[2] * shape[3] : 1)
  }
}
