import COneDNN
import COpenMP
import KDSKernels

/// c (m, n) = op(a) (m, k) · op(b) (k, n), row-major; added to c if `accumulate`.
///
/// oneDNN splits a product by the number of threads, which changes roundings. Here the tiles depend
/// on the shape alone and each runs on one thread, so that one thread and many give the same bits.
struct MatrixProduct {
  let m, n, k: Int
  let transposeA, transposeB, accumulate: Bool
  private let tileRows, tileColumns: Int

  init(_ m: Int, _ n: Int, _ k: Int, transposeA: Bool, transposeB: Bool, accumulate: Bool = false) {
    (self.m, self.n, self.k) = (m, n, k)
    (self.transposeA, self.transposeB, self.accumulate) = (transposeA, transposeB, accumulate)
    // Equal tiles, tall ones first: every row of tiles reads all of b once more.
    var (rows, columns) = (Self.evenPart(of: m, most: 512), Self.evenPart(of: n, most: 512))
    func tiles() -> Int { ((m + rows - 1) / rows) * ((n + columns - 1) / columns) }
    // Enough tiles for a few threads, as long as each is worth a thread's while.
    while rows > 0, columns > 0, tiles() < 8, rows * columns * k > 1 << 21, max(rows, columns) > 32
    {
      if rows >= columns { rows = (rows + 1) / 2 } else { columns = (columns + 1) / 2 }
    }
    (tileRows, tileColumns) = (rows, columns)
  }

  /// The size of equal parts, in whole blocks of 16, none above `most`.
  private static func evenPart(of size: Int, most: Int) -> Int {
    let parts = max(1, (size + most - 1) / most)
    return min(size, ((size + parts - 1) / parts + 15) / 16 * 16)
  }

  func run(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>
  ) {
    if m == 0 || n == 0 { return }
    if k == 0 {
      if !accumulate { c.update(repeating: 0, count: m * n) }
      return
    }
    let across = (n + tileColumns - 1) / tileColumns
    let tiles = (m + tileRows - 1) / tileRows * across
    parallelFor(count: tiles, grain: 1) { range in
      let alone = omp_in_parallel() == 0
      if alone { omp_set_num_threads(1) }
      for tile in range {
        runTile(a, b, c, tile / across * tileRows, tile % across * tileColumns)
      }
      if alone { Threads.enter() }
    }
  }

  private func runTile(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>,
    _ row: Int, _ column: Int
  ) {
    let (transposed, plain) = (CChar(UInt8(ascii: "T")), CChar(UInt8(ascii: "N")))
    dnnl_sgemm(
      transposeA ? transposed : plain, transposeB ? transposed : plain,
      Int64(min(tileRows, m - row)), Int64(min(tileColumns, n - column)), Int64(k), 1,
      a + (transposeA ? row : row * k), Int64(transposeA ? m : k),
      b + (transposeB ? column * k : column), Int64(transposeB ? k : n), accumulate ? 1 : 0,
      c + row * n + column, Int64(n))
  }
}
