import KDSKernels

extension Tensor {
  /// Every element at the nearest value of {0, s, 2s, …}, ties down, as Quantization Mimic (Wei et al.
  /// 2018, equations 1 to 3) does with feature maps: Q(f) = s · max(0, ⌈f/s − 1/2⌉).
  ///
  /// The gradient is the straight-through one: it passes unchanged. With `relu` the result is
  /// Q(ReLU(f)), which equals Q(f), and the gradient passes where f > 0 alone.
  /// - Parameters:
  ///   - step: s, 1 in the paper.
  ///   - form: the values between which is chosen.
  /// - Layout: any, kept; bfloat16 is widened.
  /// - Throws: `KDSError.argument` for a step that is not positive and finite, and for NaN or infinity
  ///   in the map.
  public func quantized(
    step: Float = 1, form: QuantizerForm = .uniform, relu: Bool = false
  ) throws -> Tensor {
    if layout == .half { return try widened().quantized(step: step, form: form, relu: relu) }
    try requireFloats("quantize", [self])
    guard step > 0, step.isFinite else {
      throw KDSError.argument("quantize: step \(step) must be above 0 and finite")
    }
    let result = try uninitializedLike()
    let bad = Kernels.quantize(form, step: step, floats, result.floats, storedCount)
    guard bad == 0 else {
      throw KDSError.argument("quantize: the map \(shape) holds NaN, infinity or what overflows")
    }
    let input = relu ? detachedView() : nil
    return Tape.record(result, "quantize", [self]) { gradient in
      guard let input else { return [gradient] }
      let gated = try gradient.uninitializedLike()
      Kernels.gateByPositive(input: input.floats, gradient.floats, gated.floats, gated.storedCount)
      return [gated]
    }
  }
}
