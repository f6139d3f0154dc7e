extension Kernels {
  /// sum over rows of w T² KL(softmax(z_t / T) || softmax(z_s / T)), the bins of a row summed.
  ///
  /// Gradient to the student only: scale w T (P_s - P_t). Every bin adds P_t f(u) with
  /// u = log P_s - log P_t and f(u) = e^u - 1 - u >= 0, which has the same sum as P_t (-u) and loses
  /// nothing to cancellation where both distributions are close.
  /// - Parameters:
  ///   - student, teacher: (rows, columns) logits.
  ///   - weights: (rows / group) or nil for 1; `group` rows in a row share one. Rows of weight 0 are
  ///     skipped.
  public static func divergence(
    student: UnsafePointer<Float>, teacher: UnsafePointer<Float>, rows: Int, columns: Int,
    temperature: Float = 1, weights: UnsafePointer<Float>? = nil, group: Int = 1, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    let inverse = 1 / temperature
    let square = Double(temperature) * Double(temperature)
    return reduceChunks(count: rows, chunk: rowGrain(columns)) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * columns + 1) { buffer in
        let (own, theirs) = (buffer.baseAddress!, buffer.baseAddress! + columns)
        var value = 0.0
        for row in range {
          let out = gradient.map { $0 + row * columns }
          let weight = weights?[row / group] ?? 1
          if weight == 0 || columns == 0 {
            out?.update(repeating: 0, count: columns)
            continue
          }
          let (x, y) = (student + row * columns, teacher + row * columns)
          let (peakS, totalS) = exponentials(x, own, columns, scale: inverse)
          let (peakT, totalT) = exponentials(y, theirs, columns, scale: inverse)
          let (shareS, shareT) = (1 / totalS, 1 / totalT)
          let shift = fastLog(totalS) - fastLog(totalT)
          if let out {
            let factor = scale * weight * temperature
            for i in 0..<columns { out[i] = factor * (own[i] * shareS - theirs[i] * shareT) }
          }
          for i in 0..<columns {
            let u = ((x[i] - peakS) - (y[i] - peakT)) * inverse - shift
            own[i] = divergenceTerm(own[i] * shareS, theirs[i] * shareT, u)
          }
          value += Double(weight) * Double(sum(own, columns))
        }
        return value * square
      }
    }
  }
}

/// t (e^u - 1 - u) with u = log(s / t): a series where u is small, s - t - t u elsewhere.
@inline(__always)
private func divergenceTerm(_ s: Float, _ t: Float, _ u: Float) -> Float {
  // u²/2! + u³/3! + ... to u⁹/9!; at |u| = 0.5 the first omitted term is 2e-9 of the sum.
  var p: Float = 1.0 / 362_880
  p = p * u + 1.0 / 40320
  p = p * u + 1.0 / 5040
  p = p * u + 1.0 / 720
  p = p * u + 1.0 / 120
  p = p * u + 1.0 / 24
  p = p * u + 1.0 / 6
  p = p * u + 0.5
  // Two selects: |u| <= 0.5 takes the series, a NaN takes the other branch and stays one.
  return u >= -0.5 && u <= 0.5 ? t * (p * u * u) : s - t - t * u
}
