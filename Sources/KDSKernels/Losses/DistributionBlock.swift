/// The arguments of one call of `distributionFocal`.
struct DistributionRows {
  let logits, targets: UnsafePointer<Float>
  let bins: Int
  let weights: UnsafePointer<Float>?
  let scale: Float
  let gradient: UnsafeMutablePointer<Float>?
}

/// `Kernels.distributionFocal` of short rows, sixteen at a time.
func narrowDistribution(_ call: DistributionRows, rows: Int) -> Double {
  let bins = call.bins
  let grain = max(RowBlock.lanes, rowGrain(bins) / RowBlock.lanes * RowBlock.lanes)
  return reduceChunks(count: rows, chunk: grain) { range in
    withUnsafeTemporaryAllocation(of: SIMD16<Float>.self, capacity: 2 * bins) { buffer in
      let logits = RowBlock(buffer.baseAddress!, columns: bins)
      let powers = RowBlock(buffer.baseAddress! + bins, columns: bins)
      var value = 0.0
      for first in stride(from: range.lowerBound, to: range.upperBound, by: RowBlock.lanes) {
        value += distributionBlock(call, first, range.upperBound, logits, powers)
      }
      return value
    }
  }
}

/// With the shares 1 - d of bin l and d of l + 1, l = floor(y):
/// log sum - (mean of the logits by these shares); gradient P - shares.
private func distributionBlock(
  _ call: DistributionRows, _ first: Int, _ end: Int, _ logits: RowBlock, _ powers: RowBlock
) -> Double {
  logits.load(call.logits, first: first, end: end)
  let peak = logits.peaks()
  let total = logits.powers(into: powers, peak: peak, scale: binaryLog)
  var (weight, place) = (SIMD16<Float>(), SIMD16<Float>())
  for lane in 0..<min(RowBlock.lanes, end - first) {
    weight[lane] = call.weights?[first + lane] ?? 1
    place[lane] = larger(0, smaller(call.targets[first + lane], Float(call.bins - 1)))
  }
  let skipped = weight .== 0
  let factor = weight * call.scale
  let normaliser = 1 / total
  var mean = SIMD16<Float>()
  for column in 0..<call.bins {
    // 1 - |y - column| between the neighbours of y, 0 elsewhere.
    let gap = place - Float(column)
    let away = gap.replacing(with: -gap, where: gap .< 0)
    let share = (1 - away).replacing(with: 0, where: away .>= 1)
    // A logit of -infinity counts only where it has a share.
    let own = (logits.values[column] - peak).replacing(with: 0, where: share .== 0)
    mean += share * own
    let slope = factor * (powers.values[column] * normaliser - share)
    powers.values[column] = slope.replacing(with: 0, where: skipped)
  }
  if let out = call.gradient { powers.store(out, first: first, end: end) }
  let loss = (fastLog(total) - mean).replacing(with: 0, where: skipped)
  var value = 0.0
  for lane in 0..<RowBlock.lanes { value += Double(weight[lane]) * Double(loss[lane]) }
  return value
}
