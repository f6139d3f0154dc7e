/// Sixteen rows of a small matrix side by side, one in each lane: a row of 17 bins alone fills a vector
/// and leaves one number to a scalar loop.
///
/// Rows past the end repeat the last one; `store` leaves them out.
struct RowBlock {
  static let lanes = 16
  /// Wider rows fill vectors by themselves, and a block of them no longer fits into the first cache.
  static let widest = 64

  /// (columns) vectors; lane l belongs to row `first` + l.
  let values: UnsafeMutablePointer<SIMD16<Float>>
  let columns: Int

  init(_ memory: UnsafeMutablePointer<SIMD16<Float>>, columns: Int) {
    values = memory
    self.columns = columns
  }

  private var numbers: UnsafeMutablePointer<Float> {
    UnsafeMutableRawPointer(values).assumingMemoryBound(to: Float.self)
  }

  /// Takes rows `first`, `first` + 1, … before `end` of a matrix.
  @inline(__always)
  func load(_ matrix: UnsafePointer<Float>, first: Int, end: Int) {
    let (target, last) = (numbers, end - 1)
    for lane in 0..<Self.lanes {
      let row = matrix + min(first + lane, last) * columns
      for column in 0..<columns { target[column * Self.lanes + lane] = row[column] }
    }
  }

  /// Writes the rows before `end` back.
  @inline(__always)
  func store(_ matrix: UnsafeMutablePointer<Float>, first: Int, end: Int) {
    let source = numbers
    for lane in 0..<min(Self.lanes, end - first) {
      let row = matrix + (first + lane) * columns
      for column in 0..<columns { row[column] = source[column * Self.lanes + lane] }
    }
  }

  /// The largest number of each row; a NaN is passed over here and comes back by its exponential.
  @inline(__always)
  func peaks() -> SIMD16<Float> {
    var found = values[0]
    for column in 1..<max(columns, 1) {
      found = values[column].replacing(with: found, where: found .> values[column])
    }
    return found.replacing(with: 0, where: found .== -.infinity)
  }

  /// Writes 2^((x - peak) scale) and returns the sum of each row.
  @inline(__always)
  func powers(into out: RowBlock, peak: SIMD16<Float>, scale: Float) -> SIMD16<Float> {
    var total = SIMD16<Float>()
    for column in 0..<columns {
      let power = powerOfTwo((values[column] - peak) * scale)
      out.values[column] = power
      total += power
    }
    return total
  }
}

/// The natural logarithm of each lane; see `fastLog`.
@inline(__always)
func fastLog(_ x: SIMD16<Float>) -> SIMD16<Float> {
  var result = SIMD16<Float>()
  for lane in 0..<RowBlock.lanes { result[lane] = fastLog(x[lane]) }
  return result
}

/// 1 / ln 2
let binaryLog: Float = 1.442_695_04
