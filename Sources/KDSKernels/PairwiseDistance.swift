extension Kernels {
  /// Euclidean distances of all pairs of rows, (count, count), 0 on the diagonal.
  public static func pairwiseDistance(
    _ x: UnsafePointer<Float>, _ count: Int, columns: Int, _ out: UnsafeMutablePointer<Float>
  ) {
    parallelFor(count: count, grain: 1) { range in
      for i in range {
        let first = x + i * columns
        for j in 0..<count {
          let second = x + j * columns
          // In this order both (i, j) and (j, i) sum the same squares: the matrix is symmetric.
          let square = sumTerms(0..<columns) {
            let d = first[$0] - second[$0]
            return d * d
          }
          out[i * count + j] = Float(square.squareRoot())
        }
      }
    }
  }

  /// Gradient of `pairwiseDistance`: row i gets sum_j (g_ij + g_ji) (x_i - x_j) / d_ij, where rows
  /// that coincide add nothing.
  public static func pairwiseDistanceBackward(
    _ x: UnsafePointer<Float>, distances: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>,
    _ count: Int, columns: Int, gradInput: UnsafeMutablePointer<Float>
  ) {
    parallelFor(count: count, grain: 1) { range in
      for i in range {
        let target = gradInput + i * columns
        target.update(repeating: 0, count: columns)
        for j in 0..<count where j != i && distances[i * count + j] > 0 {
          let sum = gradOutput[i * count + j] + gradOutput[j * count + i]
          let factor = sum / distances[i * count + j]
          let (first, second) = (x + i * columns, x + j * columns)
          for k in 0..<columns { target[k] += factor * (first[k] - second[k]) }
        }
      }
    }
  }
}
