import KDSKernels

extension Tensor {
  /// Layer normalisation over the last axis (Ba et al. 2016; `torch.nn.LayerNorm`):
  /// (x - mean) / sqrt(variance + eps) · weight + bias.
  ///
  /// - Shapes: self (…, C); weight and bias (C), nil for 1 and 0. Gradients go to all three.
  public func layerNorm(weight: Tensor? = nil, bias: Tensor? = nil, eps: Float = 1e-5) throws
    -> Tensor
  {
    let name = "layer_norm"
    try requireFloats(name, [self] + [weight, bias].compactMap { $0 })
    guard let columns = shape.last else {
      throw KDSError.shape("\(name): input must be (…, C), not a single number")
    }
    for parameter in [weight, bias].compactMap({ $0 }) where parameter.shape != [columns] {
      throw KDSError.shape(
        "\(name): weight or bias \(parameter.shape) must be [\(columns)] for input \(shape)")
    }
    guard eps >= 0, eps.isFinite else {
      throw KDSError.argument("\(name): eps must be a number of at least 0, not \(eps)")
    }
    let source = try plain()
    let rows = columns > 0 ? source.count / columns : 0
    let result = try source.uninitializedLike()
    let means = try Tensor(uninitialized: [rows])
    let inverses = try Tensor(uninitialized: [rows])
    Kernels.layerNormForward(
      source.floats, rows: rows, columns: columns, weight: weight.map { UnsafePointer($0.floats) },
      bias: bias.map { UnsafePointer($0.floats) }, eps: eps, output: result.floats,
      means: means.floats, inverses: inverses.floats)
    let (input, factors) = (source.detachedView(), weight?.detachedView())
    let inputs = [source] + [weight, bias].compactMap { $0 }
    return Tape.record(result, name, inputs) { gradient in
      let toInput = try gradient.uninitializedLike()
      let toWeight = try weight.map { try Tensor.zeros($0.shape) }
      let toBias = try bias.map { try Tensor.zeros($0.shape) }
      Kernels.layerNormBackward(
        input: input.floats, gradOutput: gradient.floats, rows: rows, columns: columns,
        weight: factors.map { UnsafePointer($0.floats) }, means: means.floats,
        inverses: inverses.floats, gradInput: toInput.floats, gradWeight: toWeight?.floats,
        gradBias: toBias?.floats)
      return [toInput] + [toWeight, toBias].compactMap { $0 }
    }
  }
}
