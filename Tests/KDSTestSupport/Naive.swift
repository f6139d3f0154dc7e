/// Definitions written out with no regard to speed: what fast operations are compared with.
public enum Naive {
  /// All index vectors of a shape, row-major.
  public static func indices(_ shape: [Int]) -> [[Int]] {
    shape.reduce([[]]) { prefixes, size in
      prefixes.flatMap { prefix in (0..<size).map { prefix + [$0] } }
    }
  }

  /// Row-major position of an index vector; sizes of 1 repeat, missing leading axes too.
  public static func position(_ index: [Int], _ shape: [Int]) -> Int {
    let tail = index.suffix(shape.count)
    return zip(tail, shape).reduce(0) { $0 * $1.1 + ($1.1 == 1 ? 0 : $1.0) }
  }

  /// f over two arrays with NumPy's broadcasting, in double precision.
  public static func binary(
    _ a: [Float], _ shapeA: [Int], _ b: [Float], _ shapeB: [Int], _ shape: [Int],
    _ f: (Double, Double) -> Double
  ) -> [Float] {
    indices(shape).map {
      Float(f(Double(a[position($0, shapeA)]), Double(b[position($0, shapeB)])))
    }
  }

  /// f over the elements of each group that a reduction over `axes` puts together.
  public static func reduce(
    _ x: [Float], _ shape: [Int], axes: [Int], _ f: ([Double]) -> Double
  ) -> [Float] {
    let kept = shape.indices.map { axes.contains($0) ? 1 : shape[$0] }
    var groups = [[Double]](repeating: [], count: kept.reduce(1, *))
    for (place, index) in indices(shape).enumerated() {
      groups[position(index, kept)].append(Double(x[place]))
    }
    return groups.map { Float(f($0)) }
  }
}
