import KDSKernels

extension Tensor {
  /// Group normalisation of (N, C, H, W) as `torch.nn.functional.group_norm`; plain.
  ///
  /// - Shapes: weight and bias (C), or nil for 1 and 0.
  /// - Throws: `KDSError.argument` when the groups do not divide the channels.
  public func groupNorm(
    groups: Int, weight: Tensor? = nil, bias: Tensor? = nil, epsilon: Float = 1e-5
  ) throws -> Tensor {
    let affine = [weight, bias].compactMap { $0 }
    try requireFloats("group_norm", [self] + affine)
    try requireEpsilon("group_norm", epsilon)
    guard rank >= 2, groups > 0, shape[1] % groups == 0 else {
      throw KDSError.argument("group_norm: \(groups) groups do not divide the channels of \(shape)")
    }
    for vector in affine {
      try requireSameShape("group_norm", "weight, bias and channels", vector.shape, [shape[1]])
    }
    let geometry = GroupNormGeometry(
      images: shape[0], channels: shape[1], area: shape[2...].reduce(1, *), groups: groups)
    let source = try plain()
    let result = try Tensor(uninitialized: shape)
    let statistics = [shape[0], groups]
    let (means, inverses) = (
      try Tensor(uninitialized: statistics), try Tensor(uninitialized: statistics)
    )
    Kernels.groupNormForward(
      source.floats, geometry, weight: weight.map { UnsafePointer($0.floats) },
      bias: bias.map { UnsafePointer($0.floats) }, eps: epsilon, output: result.floats,
      means: means.floats, inverses: inverses.floats)
    let value = source.detachedView()
    return Tape.record(result, "group_norm", [source] + affine) { gradient in
      let toSource = try Tensor(uninitialized: value.shape)
      let toWeight = try weight.map { try Tensor.zeros($0.shape) }
      let toBias = try bias.map { try Tensor.zeros($0.shape) }
      Kernels.groupNormBackward(
        input: value.floats, gradOutput: gradient.floats, geometry,
        weight: weight.map { UnsafePointer($0.floats) }, means: means.floats,
        inverses: inverses.floats, gradInput: toSource.floats, gradWeight: toWeight?.floats,
        gradBias: toBias?.floats)
      return [toSource] + [toWeight, toBias].compactMap { $0 }.map { Optional($0) }
    }
  }
}

/// Throws unless a number that keeps a root away from 0 does that.
func requireEpsilon(_ name: String, _ epsilon: Float) throws {
  if !(epsilon >= 0 && epsilon.isFinite) {
    throw KDSError.argument("\(name): eps must be a number of at least 0, not \(epsilon)")
  }
}
