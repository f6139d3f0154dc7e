#if canImport(Glibc)
  import Glibc
#endif

/// Rows whose parameter gradients are summed together before the partial sums are added in order.
private let normChunk = 64

/// Mean and 1 / sqrt(variance + eps) of `count` values; two passes, double across blocks of 4096.
@inline(__always)
func moments(
  _ x: UnsafePointer<Float>, _ count: Int, eps: Float
) -> (mean: Float, inverse: Float) {
  var total = 0.0
  var start = 0
  while start < count {
    let length = min(4096, count - start)
    total += Double(sum(x + start, length))
    start += length
  }
  let mean = Float(total / Double(count))
  var squares = 0.0
  start = 0
  while start < count {
    let length = min(4096, count - start)
    squares += Double(squaredDeviation(x + start, length, mean))
    start += length
  }
  return (mean, Float(1 / (squares / Double(count) + Double(eps)).squareRoot()))
}

@inline(__always)
private func squaredDeviation(_ x: UnsafePointer<Float>, _ count: Int, _ mean: Float) -> Float {
  var lanes = SIMD16<Float>(repeating: 0)
  var index = 0
  while index + 16 <= count {
    let d = load16(x + index) - mean
    lanes += d * d
    index += 16
  }
  var total: Float = index > 0 ? lanes.sum() : 0
  while index < count {
    total += (x[index] - mean) * (x[index] - mean)
    index += 1
  }
  return total
}

extension Kernels {
  /// Layer normalisation over the last axis of (rows, columns):
  /// y = (x - mean) / sqrt(variance + eps) * weight + bias (`torch.nn.LayerNorm`).
  /// - Parameters:
  ///   - weight, bias: (columns) or nil.
  ///   - means, inverses: (rows); mean and 1 / sqrt(variance + eps), for the backward pass.
  public static func layerNormForward(
    _ input: UnsafePointer<Float>, rows: Int, columns: Int, weight: UnsafePointer<Float>?,
    bias: UnsafePointer<Float>?, eps: Float, output: UnsafeMutablePointer<Float>,
    means: UnsafeMutablePointer<Float>, inverses: UnsafeMutablePointer<Float>
  ) {
    if columns <= 0 { return }
    parallelFor(count: rows, grain: rowGrain(columns)) { range in
      for row in range {
        let (x, y) = (input + row * columns, output + row * columns)
        let (mean, inverse) = moments(x, columns, eps: eps)
        means[row] = mean
        inverses[row] = inverse
        for i in 0..<columns { y[i] = (x[i] - mean) * inverse }
        if let weight { for i in 0..<columns { y[i] *= weight[i] } }
        if let bias { for i in 0..<columns { y[i] += bias[i] } }
      }
    }
  }

  /// Gradients of `layerNormForward`; all outputs are overwritten.
  ///
  /// With n = (x - mean) * inverse and h = gradOutput * weight:
  /// gradInput = inverse * (h - mean(h) - n mean(h n)).
  /// - Parameter gradWeight, gradBias: (columns) or nil.
  public static func layerNormBackward(
    input: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>, rows: Int, columns: Int,
    weight: UnsafePointer<Float>?, means: UnsafePointer<Float>, inverses: UnsafePointer<Float>,
    gradInput: UnsafeMutablePointer<Float>, gradWeight: UnsafeMutablePointer<Float>?,
    gradBias: UnsafeMutablePointer<Float>?
  ) {
    if columns <= 0 { return }
    let chunks = (rows + normChunk - 1) / normChunk
    withScratch(2 * max(chunks, 1) * columns) { partials in
      parallelFor(count: chunks, grain: 1) { range in
        for chunk in range {
          let sums = partials + 2 * chunk * columns
          sums.update(repeating: 0, count: 2 * columns)
          for row in chunk * normChunk..<min((chunk + 1) * normChunk, rows) {
            let at = row * columns
            layerNormRow(
              input + at, gradOutput + at, columns, weight, means[row], inverses[row],
              gradInput + at, sums, sums + columns)
          }
        }
      }
      addPartials(partials, chunks, columns, gradWeight, gradBias)
    }
  }

  /// Adds the chunks' sums (weight, bias) in order.
  static func addPartials(
    _ partials: UnsafePointer<Float>, _ chunks: Int, _ columns: Int,
    _ gradWeight: UnsafeMutablePointer<Float>?, _ gradBias: UnsafeMutablePointer<Float>?
  ) {
    for (half, target) in [gradWeight, gradBias].enumerated() {
      guard let target else { continue }
      target.update(repeating: 0, count: columns)
      for chunk in 0..<chunks {
        let source = partials + (2 * chunk + half) * columns
        for i in 0..<columns { target[i] += source[i] }
      }
    }
  }

  @inline(__always)
  private static func layerNormRow(
    _ x: UnsafePointer<Float>, _ g: UnsafePointer<Float>, _ columns: Int,
    _ weight: UnsafePointer<Float>?, _ mean: Float, _ inverse: Float,
    _ out: UnsafeMutablePointer<Float>, _ weightSums: UnsafeMutablePointer<Float>,
    _ biasSums: UnsafeMutablePointer<Float>
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: columns) { scratch in
      let n = scratch.baseAddress!
      for i in 0..<columns { n[i] = (x[i] - mean) * inverse }
      for i in 0..<columns { weightSums[i] += g[i] * n[i] }
      for i in 0..<columns { biasSums[i] += g[i] }
      if let weight {
        for i in 0..<columns { out[i] = g[i] * weight[i] }
      } else {
        for i in 0..<columns { out[i] = g[i] }
      }
      let share = 1 / Float(columns)
      let average = sum(out, columns) * share
      let projection = dot(out, n, columns) * share
      for i in 0..<columns { out[i] = inverse * (out[i] - average - n[i] * projection) }
    }
  }
}
