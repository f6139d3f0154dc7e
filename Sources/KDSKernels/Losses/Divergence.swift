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
    if columns > 0 && columns <= RowBlock.widest {
      return narrowDivergence(
        DivergenceRows(
          student: student, teacher: teacher, columns: columns, temperature: temperature,
          weights: weights, group: group, scale: scale, gradient: gradient), rows: rows)
    }
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

/// The arguments of one call of `divergence`.
private struct DivergenceRows {
  let student, teacher: UnsafePointer<Float>
  let columns: Int
  let temperature: Float
  let weights: UnsafePointer<Float>?
  let group: Int
  let scale: Float
  let gradient: UnsafeMutablePointer<Float>?

  /// The weights of the rows from `first` on, 0 from `end` on.
  func weight(_ first: Int, _ end: Int) -> SIMD16<Float> {
    var result = SIMD16<Float>()
    for lane in 0..<min(RowBlock.lanes, end - first) {
      result[lane] = weights?[(first + lane) / group] ?? 1
    }
    return result
  }
}

/// `divergence` of short rows, sixteen at a time.
private func narrowDivergence(_ call: DivergenceRows, rows: Int) -> Double {
  let columns = call.columns
  let grain = max(RowBlock.lanes, rowGrain(columns) / RowBlock.lanes * RowBlock.lanes)
  return reduceChunks(count: rows, chunk: grain) { range in
    withUnsafeTemporaryAllocation(of: SIMD16<Float>.self, capacity: 4 * columns) { buffer in
      let blocks = (0..<4).map { RowBlock(buffer.baseAddress! + $0 * columns, columns: columns) }
      var value = 0.0
      for first in stride(from: range.lowerBound, to: range.upperBound, by: RowBlock.lanes) {
        value += divergenceBlock(
          call, first, range.upperBound, (blocks[0], blocks[1]), (blocks[2], blocks[3]))
      }
      return value * Double(call.temperature) * Double(call.temperature)
    }
  }
}

/// One block: `logits` and `powers` are the student's and the teacher's room.
private func divergenceBlock(
  _ call: DivergenceRows, _ first: Int, _ end: Int, _ logits: (RowBlock, RowBlock),
  _ powers: (RowBlock, RowBlock)
) -> Double {
  logits.0.load(call.student, first: first, end: end)
  logits.1.load(call.teacher, first: first, end: end)
  let inverse = 1 / call.temperature
  let (peakS, peakT) = (logits.0.peaks(), logits.1.peaks())
  let totalS = logits.0.powers(into: powers.0, peak: peakS, scale: inverse * binaryLog)
  let totalT = logits.1.powers(into: powers.1, peak: peakT, scale: inverse * binaryLog)
  let shift = fastLog(totalS) - fastLog(totalT)
  let (shareS, shareT) = (1 / totalS, 1 / totalT)
  let weight = call.weight(first, end)
  let skipped = weight .== 0
  let factor = weight * (call.scale * call.temperature)
  var sums = SIMD16<Float>()
  for column in 0..<call.columns {
    let s = powers.0.values[column] * shareS
    let t = powers.1.values[column] * shareT
    let gap = (logits.0.values[column] - peakS) - (logits.1.values[column] - peakT)
    sums += divergenceTerm(s, t, gap * inverse - shift)
    powers.0.values[column] = (factor * (s - t)).replacing(with: 0, where: skipped)
  }
  if let out = call.gradient { powers.0.store(out, first: first, end: end) }
  sums = sums.replacing(with: 0, where: skipped)
  var value = 0.0
  for lane in 0..<RowBlock.lanes { value += Double(weight[lane]) * Double(sums[lane]) }
  return value
}

/// `divergenceTerm` of sixteen numbers.
@inline(__always)
private func divergenceTerm(
  _ s: SIMD16<Float>, _ t: SIMD16<Float>, _ u: SIMD16<Float>
) -> SIMD16<Float> {
  var p = u * Float(1.0 / 362_880) + Float(1.0 / 40320)
  p = p * u + Float(1.0 / 5040)
  p = p * u + Float(1.0 / 720)
  p = p * u + Float(1.0 / 120)
  p = p * u + Float(1.0 / 24)
  p = p * u + Float(1.0 / 6)
  p = p * u + 0.5
  return (s - t - t * u).replacing(with: t * (p * u * u), where: (u .>= -0.5) .& (u .<= 0.5))
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
