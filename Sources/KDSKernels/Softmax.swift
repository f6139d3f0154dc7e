#if canImport(Glibc)
  import Glibc
#endif

/// Rows in one piece of work: about `elementGrain / 4` elements, exp being costlier than an add.
func rowGrain(_ columns: Int) -> Int { max(1, elementGrain / 4 / max(columns, 1)) }

/// Writes e^(scale * (x - max x)) of one row and returns the row's maximum and the sum.
@inline(__always)
func exponentials(
  _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ columns: Int, scale: Float = 1
) -> (peak: Float, total: Float) {
  let found = largest(x, columns)
  // A row of -inf alone would give -inf - -inf; 0 keeps it at e^-inf = 0 and the result at 0/0.
  let peak = found == -.infinity ? 0 : found
  for i in 0..<columns { out[i] = fastExp((x[i] - peak) * scale) }
  return (peak, sum(out, columns))
}

extension Kernels {
  /// Softmax over the last axis of (rows, columns); `out` may be `x`. A NaN makes its row NaN.
  public static func softmax(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, rows: Int, columns: Int
  ) {
    if columns <= 0 { return }
    parallelFor(count: rows, grain: rowGrain(columns)) { range in
      for row in range {
        let target = out + row * columns
        let total = exponentials(x + row * columns, target, columns).total
        let inverse = 1 / total
        for i in 0..<columns { target[i] *= inverse }
      }
    }
  }

  /// gradInput = y (gradOutput - <gradOutput, y>), from the *output* y of `softmax`, row by row.
  public static func softmaxBackward(
    output: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>,
    gradInput: UnsafeMutablePointer<Float>, rows: Int, columns: Int
  ) {
    parallelFor(count: rows, grain: rowGrain(columns)) { range in
      for row in range {
        let y = output + row * columns
        let upstream = gradOutput + row * columns
        let target = gradInput + row * columns
        let inner = dot(y, upstream, columns)
        for i in 0..<columns { target[i] = y[i] * (upstream[i] - inner) }
      }
    }
  }

  /// log softmax over the last axis of (rows, columns); `out` may be `x`.
  public static func logSoftmax(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, rows: Int, columns: Int
  ) {
    if columns <= 0 { return }
    parallelFor(count: rows, grain: rowGrain(columns)) { range in
      for row in range {
        let source = x + row * columns
        let target = out + row * columns
        let (peak, total) = streamingExponentials(source, columns)
        let shift = log(total)
        for i in 0..<columns { target[i] = (source[i] - peak) - shift }
      }
    }
  }

  /// gradInput = gradOutput - e^y sum(gradOutput), from the *output* y of `logSoftmax`.
  public static func logSoftmaxBackward(
    output: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>,
    gradInput: UnsafeMutablePointer<Float>, rows: Int, columns: Int
  ) {
    parallelFor(count: rows, grain: rowGrain(columns)) { range in
      for row in range {
        let y = output + row * columns
        let upstream = gradOutput + row * columns
        let target = gradInput + row * columns
        let total = sum(upstream, columns)
        for i in 0..<columns { target[i] = upstream[i] - fastExp(y[i]) * total }
      }
    }
  }

  /// out[row] = log sum_c e^x[row, c], shifted by the row's maximum; -inf for an empty row.
  public static func logSumExp(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, rows: Int, columns: Int
  ) {
    parallelFor(count: rows, grain: rowGrain(columns)) { range in
      for row in range {
        if columns <= 0 {
          out[row] = -.infinity
          continue
        }
        let (peak, total) = streamingExponentials(x + row * columns, columns)
        out[row] = peak + log(total)
      }
    }
  }
}

/// Inner product of two rows, 16 lanes then the tail.
@inline(__always)
func dot(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ count: Int) -> Float {
  var lanes = SIMD16<Float>(repeating: 0)
  var index = 0
  while index + 16 <= count {
    lanes += load16(a + index) * load16(b + index)
    index += 16
  }
  var total: Float = index > 0 ? lanes.sum() : 0
  while index < count {
    total += a[index] * b[index]
    index += 1
  }
  return total
}

/// The maximum of a row and sum e^(x - max), without keeping the exponentials: 64 at a time.
@inline(__always)
func streamingExponentials(
  _ x: UnsafePointer<Float>, _ columns: Int, scale: Float = 1
) -> (peak: Float, total: Float) {
  let found = largest(x, columns)
  // +inf and NaN must survive into the sum; only an all -inf row is shifted by 0.
  let peak = found == -.infinity ? 0 : found
  return withUnsafeTemporaryAllocation(of: Float.self, capacity: 64) { buffer in
    let scratch = buffer.baseAddress!
    var total: Float = 0
    var start = 0
    while start < columns {
      let length = min(64, columns - start)
      for i in 0..<length { scratch[i] = fastExp((x[start + i] - peak) * scale) }
      total += sum(scratch, length)
      start += length
    }
    return (peak, total)
  }
}
