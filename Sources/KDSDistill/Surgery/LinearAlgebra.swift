import COpenBLAS
import KDSTensor

/// Matrices in double precision, row-major: what a factorization needs of BLAS and LAPACK.
package struct Matrix {
  package let rows, columns: Int
  package var values: [Double]

  package init(_ rows: Int, _ columns: Int, _ values: [Double]) {
    precondition(values.count == rows * columns)
    self.rows = rows
    self.columns = columns
    self.values = values
  }

  /// a · b, or a · bᵀ.
  package func times(_ other: Matrix, transposed: Bool = false) -> Matrix {
    let inner = transposed ? other.columns : other.rows
    let width = transposed ? other.rows : other.columns
    precondition(inner == columns)
    var result = [Double](repeating: 0, count: rows * width)
    if rows > 0, width > 0, inner > 0 {
      cblas_dgemm(
        Int32(KDS_ROW_MAJOR), Int32(KDS_NO_TRANSPOSE),
        Int32(transposed ? KDS_TRANSPOSE : KDS_NO_TRANSPOSE), Int32(rows), Int32(width),
        Int32(inner), 1, values, Int32(columns), other.values, Int32(other.columns), 0, &result,
        Int32(width))
    }
    return Matrix(rows, width, result)
  }

  /// a · aᵀ.
  package func gram() -> Matrix { times(self, transposed: true) }

  package func transposed() -> Matrix {
    var result = [Double](repeating: 0, count: values.count)
    values.withUnsafeBufferPointer { from in
      result.withUnsafeMutableBufferPointer { to in
        for row in 0..<rows {
          for column in 0..<columns { to[column * rows + row] = from[row * columns + column] }
        }
      }
    }
    return Matrix(columns, rows, result)
  }

  /// The first rows.
  package func prefix(_ count: Int) -> Matrix {
    Matrix(count, columns, Array(values[0..<count * columns]))
  }

  /// Σ aᵢⱼ².
  package var squaredNorm: Double { values.reduce(0) { $0 + $1 * $1 } }
}

/// Eigenvalues in descending order with their vectors as rows.
struct Eigensystem {
  let values: [Double]
  let vectors: Matrix

  /// Of a symmetric matrix, by LAPACK's dsyevd. The sign of each vector makes its largest element
  /// positive, so that results do not depend on the library.
  init(symmetric matrix: Matrix) throws {
    let size = matrix.rows
    var (ascending, vectors) = ([Double](repeating: 0, count: size), matrix.values)
    try Self.solve(&vectors, &ascending, size)
    var sorted = [Double](repeating: 0, count: size * size)
    for row in 0..<size {
      // Column-major columns of LAPACK are the rows here.
      let source = vectors[(size - 1 - row) * size..<(size - row) * size]
      let largest = source.max { abs($0) < abs($1) } ?? 1
      let sign: Double = largest < 0 ? -1 : 1
      for (column, value) in source.enumerated() { sorted[row * size + column] = sign * value }
    }
    values = ascending.reversed()
    self.vectors = Matrix(size, size, sorted)
  }

  private static func solve(
    _ matrix: inout [Double], _ eigenvalues: inout [Double], _ size: Int
  ) throws {
    guard size > 0, matrix.allSatisfy(\.isFinite) else {
      throw KDSError.argument("factorization: weights are empty or not finite")
    }
    var (n, query, info) = (Int32(size), Int32(-1), Int32(0))
    var wanted = 0.0
    var wantedIntegers = Int32(0)
    dsyevd_(
      "V", "U", &n, &matrix, &n, &eigenvalues, &wanted, &query, &wantedIntegers, &query, &info)
    var (length, integerLength) = (Int32(wanted), wantedIntegers)
    var work = [Double](repeating: 0, count: max(1, Int(length)))
    var integers = [Int32](repeating: 0, count: max(1, Int(integerLength)))
    dsyevd_(
      "V", "U", &n, &matrix, &n, &eigenvalues, &work, &length, &integers, &integerLength, &info)
    guard info == 0 else {
      throw KDSError.runtime("factorization: LAPACK's dsyevd failed with status \(info)")
    }
  }
}
