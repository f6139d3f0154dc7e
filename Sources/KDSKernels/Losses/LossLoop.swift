/// Elements of a loss summed in single precision before the sum goes on in double.
private let lossBlock = 256

/// Sums `term(i)` over `range`, in double precision across blocks of 256.
///
/// Call it inside the closure of `reduceChunks`, with a closure literal: the literal is then inlined
/// and the block loop vectorises. `term` must be straight-line code over hoisted pointers.
@inline(__always)
func sumTerms(_ range: Range<Int>, _ term: (Int) -> Float) -> Double {
  withUnsafeTemporaryAllocation(of: Float.self, capacity: lossBlock) { buffer in
    let values = buffer.baseAddress!
    var total = 0.0
    var start = range.lowerBound
    while start < range.upperBound {
      let length = min(lossBlock, range.upperBound - start)
      for i in 0..<length { values[i] = term(start &+ i) }
      total += Double(sum(values, length))
      start += length
    }
    return total
  }
}

/// Sum of an elementwise loss over `range` and, when wanted, its gradient times `scale`, in one
/// pass. `term(i)` gives the value and the derivative; without a gradient the latter is dead code.
@inline(__always)
func elementwiseLoss(
  _ range: Range<Int>, _ scale: Float, _ gradient: UnsafeMutablePointer<Float>?,
  _ term: (Int) -> (value: Float, derivative: Float)
) -> Double {
  guard let gradient else { return sumTerms(range) { term($0).value } }
  return sumTerms(range) { i in
    let (value, derivative) = term(i)
    gradient[i] = scale * derivative
    return value
  }
}
