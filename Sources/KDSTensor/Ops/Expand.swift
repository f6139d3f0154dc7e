import KDSKernels

extension Tensor {
  /// The tensor repeated to `target` by NumPy's broadcasting; plain.
  ///
  /// - Throws: `KDSError.shape` when a size is neither 1 nor the target's.
  public func expanded(to target: [Int]) throws -> Tensor {
    try expanded(to: target, layout: .plain)
  }

  /// The same, with the result in the given layout.
  func expanded(to target: [Int], layout wanted: Layout) throws -> Tensor {
    if shape == target { return try inLayout(wanted) }
    try requireFloats("expand", [self])
    try requireSize("expand", target)
    guard rank <= target.count, try broadcastShape("expand", shape, target) == target else {
      throw KDSError.shape("expand: shape \(shape) does not stretch to \(target)")
    }
    let (source, memory) = try operand(of: target, wanted)
    let result = try Tensor(uninitialized: target, layout: wanted)
    let sizes = result.memoryShape
    Kernels.gatherStrided(
      source.floats, result.floats,
      LoopNest(sizes: sizes, strides: [LoopNest.broadcast(memory, to: sizes)]))
    result.clearChannelPadding()
    let original = source.shape
    return Tape.record(result, "expand", [source]) { [try $0.summed(to: original)] }
  }

  /// The tensor summed over the axes along which `target` would be stretched to its shape.
  func summed(to target: [Int]) throws -> Tensor {
    if shape == target { return self }
    let padded = leftPadded(target, to: rank)
    let axes = shape.indices.filter { padded[$0] == 1 && shape[$0] != 1 }
    let sum = axes.isEmpty ? self : try summed(axes: axes, keepDims: true)
    return sum.shape == target ? sum : try sum.reshaped(target)
  }
}
