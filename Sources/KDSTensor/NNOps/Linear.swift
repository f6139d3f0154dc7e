import KDSKernels

extension Tensor {
  /// y = x · weightᵀ + bias, then ReLU if asked for; as `torch.nn.functional.linear`.
  ///
  /// - Shapes: self (N, in); weight (out, in); bias (out); result (N, out). N may be 0.
  public func linear(
    _ weight: Tensor, bias: Tensor? = nil, activation: Activation = .none
  ) throws -> Tensor {
    guard rank == 2, weight.rank == 2, shape[1] == weight.shape[1], shape[1] > 0,
      weight.shape[0] > 0
    else {
      throw KDSError.shape(
        "linear: input \(shape) must be (N, in) and weight \(weight.shape) (out, in)")
    }
    if let bias, bias.shape != [weight.shape[0]] {
      throw KDSError.shape("linear: bias \(bias.shape) does not fit weight \(weight.shape)")
    }
    let (rows, inputs, outputs) = (shape[0], shape[1], weight.shape[0])
    if Precision.isHalf && HalfLinear.suits(rows, inputs, outputs) {
      return try HalfLinear(self, weight, bias, activation).callAsFunction()
    }
    let result = try Tensor(uninitialized: [rows, outputs])
    if let bias {
      let (target, values) = (result.floats, bias.floats)
      parallelFor(count: rows, grain: max(1, Kernels.elementwiseGrain / outputs)) { range in
        for row in range { (target + row * outputs).update(from: values, count: outputs) }
      }
    }
    gemm(
      rows, outputs, inputs, floats, false, weight.floats, true, result.floats,
      accumulate: bias != nil)
    if activation == .relu { Kernels.relu(result.floats, result.floats, result.count) }
    guard Tape.tracks([self, weight, bias]) else { return result }
    let view = result.detachedView()
    let (wantsInput, wantsWeight, wantsBias) = (
      isTracked, weight.isTracked, bias?.isTracked ?? false
    )
    return Tape.record(result, "linear", [self, weight] + (bias.map { [$0] } ?? [])) { incoming in
      var gradient = incoming
      if activation == .relu {
        gradient = try Tensor(uninitialized: incoming.shape)
        Kernels.reluBackward(
          output: view.floats, gradient: incoming.floats, gradient.floats, gradient.count)
      }
      var toInput: Tensor?
      var toWeight: Tensor?
      if wantsInput {
        toInput = try Tensor(uninitialized: [rows, inputs])
        gemm(rows, inputs, outputs, gradient.floats, false, weight.floats, false, toInput!.floats)
      }
      if wantsWeight {
        toWeight = try Tensor(uninitialized: [outputs, inputs])
        gemm(outputs, inputs, rows, gradient.floats, true, self.floats, false, toWeight!.floats)
      }
      return [toInput, toWeight, wantsBias ? try gradient.columnSums() : nil]
    }
  }

  /// Sum over rows: (N, C) to (C), in double precision.
  func columnSums() throws -> Tensor {
    let (rows, columns) = (shape[0], shape[1])
    let result = try Tensor(uninitialized: [columns])
    let (from, to) = (floats, result.floats)
    parallelFor(count: columns, grain: 256) { range in
      withUnsafeTemporaryAllocation(of: Double.self, capacity: range.count) { sums in
        let sums = sums.baseAddress!
        for index in 0..<range.count { sums[index] = 0 }
        for row in 0..<rows {
          let source = from + row * columns + range.lowerBound
          for index in 0..<range.count { sums[index] += Double(source[index]) }
        }
        for index in 0..<range.count { to[range.lowerBound + index] = Float(sums[index]) }
      }
    }
    return result
  }
}

/// c (m, n) = op(a) (m, k) · op(b) (k, n), row-major; added to c if `accumulate`.
///
/// oneDNN's kernel: OpenBLAS does not know every newer processor and then falls back to AVX2.
func gemm(
  _ m: Int, _ n: Int, _ k: Int, _ a: UnsafePointer<Float>, _ transposeA: Bool,
  _ b: UnsafePointer<Float>, _ transposeB: Bool, _ c: UnsafeMutablePointer<Float>,
  accumulate: Bool = false
) {
  MatrixProduct(m, n, k, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate)
    .run(a, b, c)
}
