/// The 32-bit key whose ascending order is the descending order of `score`, NaN last.
@inline(__always)
private func descendingKey(_ score: Float) -> UInt32 {
  if score != score { return .max }
  // -0 + 0 = +0: the two zeros are equal scores and must keep their order.
  let bits = (score + 0).bitPattern
  return bits & 0x8000_0000 != 0 ? bits : ~(bits | 0x8000_0000)
}

extension Kernels {
  /// Indices of `scores` from the highest to the lowest; equal scores keep their order, NaN comes
  /// last. A radix sort: linear in n.
  public static func argsortDescending(
    _ scores: UnsafePointer<Float>, _ n: Int, _ out: UnsafeMutablePointer<Int32>
  ) {
    if n <= 0 { return }
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 2 * n) { buffer in
      var from = buffer.baseAddress!
      var to = from + n
      for i in 0..<n { from[i] = UInt64(descendingKey(scores[i])) &<< 32 | UInt64(i) }
      withUnsafeTemporaryAllocation(of: Int.self, capacity: 2048) { counts in
        let starts = counts.baseAddress!
        for pass in 0..<3 {
          radixPass(from, to, n, shift: UInt64(32 + 11 * pass), starts)
          swap(&from, &to)
        }
      }
      for i in 0..<n { out[i] = Int32(truncatingIfNeeded: from[i]) }
    }
  }

  /// Indices of the `k` highest scores in descending order (all when k >= n); NaN counts as lowest.
  public static func topK(_ scores: UnsafePointer<Float>, _ n: Int, k: Int) -> [Int] {
    if n <= 0 || k <= 0 { return [] }
    return withUnsafeTemporaryAllocation(of: Int32.self, capacity: n) { order in
      argsortDescending(scores, n, order.baseAddress!)
      return (0..<min(k, n)).map { Int(order[$0]) }
    }
  }
}

/// One stable counting pass over 11 bits.
private func radixPass(
  _ from: UnsafeMutablePointer<UInt64>, _ to: UnsafeMutablePointer<UInt64>, _ n: Int,
  shift: UInt64, _ starts: UnsafeMutablePointer<Int>
) {
  starts.update(repeating: 0, count: 2048)
  for i in 0..<n { starts[Int(truncatingIfNeeded: (from[i] &>> shift) & 2047)] &+= 1 }
  var total = 0
  for digit in 0..<2048 {
    let count = starts[digit]
    starts[digit] = total
    total &+= count
  }
  for i in 0..<n {
    let digit = Int(truncatingIfNeeded: (from[i] &>> shift) & 2047)
    to[starts[digit]] = from[i]
    starts[digit] &+= 1
  }
}
