import KDSKernels

extension Tensor {
  /// a + b
  public func adding(_ other: Tensor) throws -> Tensor {
    if layout == .half, other.layout == .half, shape == other.shape {
      return try addingHalf(other, relu: false)
    }
    return try combined("add", .add, other) { g, _, _, _ in (g, g) }
  }

  /// a - b
  public func subtracting(_ other: Tensor) throws -> Tensor {
    try combined("sub", .subtract, other) { g, _, _, _ in (g, try g.negated()) }
  }

  /// a * b
  public func multiplied(by other: Tensor) throws -> Tensor {
    try combined("mul", .multiply, other) { g, a, b, wants in
      (
        wants.0 ? try g.multiplied(by: b) : nil,
        wants.1 ? try g.multiplied(by: a) : nil
      )
    }
  }

  /// a / b
  public func divided(by other: Tensor) throws -> Tensor {
    try combined("div", .divide, other) { g, a, b, wants in
      let toA = try g.divided(by: b)
      return (toA, wants.1 ? try toA.multiplied(by: a).divided(by: b).negated() : nil)
    }
  }

  /// a ^ b; NaN for a negative a with a fractional b. The gradient to b is 0 where a is 0.
  public func raised(to other: Tensor) throws -> Tensor {
    try combined("pow", .power, other) { g, a, b, wants in
      let toA =
        wants.0
        ? try g.multiplied(by: b).multiplied(by: a.raised(to: b.subtracting(1))) : nil
      guard wants.1 else { return (toA, nil) }
      let logarithm = try Tensor.choose(
        a.compared(.equal, to: 0), Tensor.zeros(a.shape), a.log())
      return (toA, try g.multiplied(by: a.raised(to: b)).multiplied(by: logarithm))
    }
  }

  /// The larger of both; a NaN comes through. On a tie each gets half of the gradient.
  public func maximum(_ other: Tensor) throws -> Tensor {
    try combined("maximum", .maximum, other) { g, a, b, _ in
      try extremeGradients(g, a, b, largest: true)
    }
  }

  /// The smaller of both; a NaN comes through. On a tie each gets half of the gradient.
  public func minimum(_ other: Tensor) throws -> Tensor {
    try combined("minimum", .minimum, other) { g, a, b, _ in
      try extremeGradients(g, a, b, largest: false)
    }
  }

  /// 1 where the comparison holds, else 0. No gradient.
  public func compared(_ comparison: Comparison, to other: Tensor) throws -> Tensor {
    try Tape.withoutGrad {
      try combined(comparison.rawValue, .compare(comparison), other) { _, _, _, _ in (nil, nil) }
    }
  }

  /// max(a + b, 0) in one pass: the end of a residual block. Both must have one shape.
  public func addingReLU(_ other: Tensor) throws -> Tensor {
    try requireFloats("add_relu", [self, other])
    try requireSameShape("add_relu", "both inputs", shape, other.shape)
    if layout == .half || other.layout == .half { return try addingHalf(other, relu: true) }
    let layout = resultLayout(self, other, shape)
    let (a, b) = (try inLayout(layout), try other.inLayout(layout))
    let result = try a.uninitializedLike()
    Kernels.addReLU(a.floats, b.floats, result.floats, result.storedCount)
    let output = result.detachedView()
    return Tape.record(result, "add_relu", [a, b]) { gradient in
      let toBoth = try gradient.uninitializedLike()
      Kernels.reluBackward(
        output: output.floats, gradient: gradient.floats, toBoth.floats, toBoth.storedCount)
      return [toBoth, toBoth]
    }
  }

  /// Elements of `a` where `condition` is not 0, of `b` elsewhere; the three broadcast together.
  public static func choose(_ condition: Tensor, _ a: Tensor, _ b: Tensor) throws -> Tensor {
    try requireFloats("where", [condition, a, b])
    let shape = try broadcastShape(
      "where", condition.shape, broadcastShape("where", a.shape, b.shape))
    let mask = try condition.detached().expanded(to: shape)
    let (first, second) = (try a.expanded(to: shape), try b.expanded(to: shape))
    let result = try Tensor(uninitialized: shape)
    Kernels.choose(mask.floats, first.floats, second.floats, result.floats, result.count)
    let (wantsFirst, wantsSecond) = (first.isTracked, second.isTracked)
    return Tape.record(result, "where", [first, second]) { gradient in
      let zeros = try Tensor.zeros(shape)
      return [
        wantsFirst ? try choose(mask, gradient, zeros) : nil,
        wantsSecond ? try choose(mask, zeros, gradient) : nil,
      ]
    }
  }

  /// f of two tensors with broadcasting. `gradients` gets the output's gradient, both operands and
  /// which gradients are wanted, and returns them in the output's shape; they are summed to the
  /// operands' shapes here.
  private func combined(
    _ name: String, _ function: BinaryFunction, _ other: Tensor,
    _ gradients: @escaping (Tensor, Tensor, Tensor, (Bool, Bool)) throws -> (Tensor?, Tensor?)
  ) throws -> Tensor {
    try requireFloats(name, [self, other])
    let shape = try broadcastShape(name, self.shape, other.shape)
    let layout = resultLayout(self, other, shape)
    let result = try Tensor(uninitialized: shape, layout: layout)
    let (a, shapeA) = try operand(of: shape, layout)
    let (b, shapeB) = try other.operand(of: shape, layout)
    let memory = result.memoryShape
    let nest = LoopNest(
      sizes: memory,
      strides: [
        LoopNest.broadcast(shapeA, to: memory), LoopNest.broadcast(shapeB, to: memory),
      ])
    Kernels.binary(function, a.floats, b.floats, result.floats, nest)
    if !(function.keepsZero && shapeA == shapeB) { result.clearChannelPadding() }
    let wants = (a.isTracked, b.isTracked)
    let (valueA, valueB) = (a.detachedView(), b.detachedView())
    return Tape.record(result, name, [a, b]) { gradient in
      let (toA, toB) = try gradients(gradient, valueA, valueB, wants)
      return [
        wants.0 ? try toA?.summed(to: valueA.shape) : nil,
        wants.1 ? try toB?.summed(to: valueB.shape) : nil,
      ]
    }
  }
}

private func extremeGradients(
  _ g: Tensor, _ a: Tensor, _ b: Tensor, largest: Bool
) throws -> (Tensor?, Tensor?) {
  let (plain, first) = (try g.plain(), try a.expanded(to: g.shape))
  let second = try b.expanded(to: g.shape)
  let (toA, toB) = (try plain.uninitializedLike(), try plain.uninitializedLike())
  Kernels.extremeGradient(
    first.floats, second.floats, plain.floats, toA.floats, g.count, largest: largest)
  Kernels.extremeGradient(
    second.floats, first.floats, plain.floats, toB.floats, g.count, largest: largest)
  return (toA, toB)
}
