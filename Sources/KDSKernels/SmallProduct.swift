/// c (rows, columns) = a (rows, inner) · b (inner, columns) for matrices that stay in the first cache.
///
/// `b` and `c` are row-major; `a` has any strides, so it may be transposed. The number of rows is rounded
/// up to fours and that of columns to sixteens: the memory behind them must exist. One thread.
struct SmallProduct {
  let rows, columns, inner: Int
  /// Steps of `a` from row to row and along the inner axis, and of `b` and `c` from row to row.
  let aRow, aInner, bRow, cRow: Int

  @inline(__always)
  func callAsFunction(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>
  ) {
    var column = 0
    while column < columns {
      var row = 0
      while row < rows {
        tile(a + row &* aRow, b + column, c + (row &* cRow &+ column))
        row &+= 4
      }
      column &+= 16
    }
  }

  /// Four rows of sixteen columns: four sums in registers hide the latency of an addition.
  @inline(__always)
  private func tile(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>
  ) {
    var (sum0, sum1) = (SIMD16<Float>(repeating: 0), SIMD16<Float>(repeating: 0))
    var (sum2, sum3) = (sum0, sum1)
    var (left, right) = (a, b)
    for _ in 0..<inner {
      let values = load16(right)
      sum0 += values * left[0]
      sum1 += values * left[aRow]
      sum2 += values * left[2 &* aRow]
      sum3 += values * left[3 &* aRow]
      left += aInner
      right += bRow
    }
    store16(sum0, c)
    store16(sum1, c + cRow)
    store16(sum2, c + 2 &* cRow)
    store16(sum3, c + 3 &* cRow)
  }
}
