import KDSKernels
import Testing

/// Seeded uniform numbers for a test.
func randoms(_ n: Int, _ seed: UInt64, _ low: Float = -1, _ high: Float = 1) -> [Float] {
  var random = CounterRandom(seed: seed, stream: 7)
  return (0..<n).map { _ in random.uniform(low, high) }
}

/// `n` boxes with sides of 1 to about 60 inside a 100 x 100 image.
func randomBoxes(_ n: Int, _ seed: UInt64) -> [Float] {
  var random = CounterRandom(seed: seed, stream: 8)
  return (0..<n).flatMap { _ -> [Float] in
    let (x, y) = (random.uniform(0, 60), random.uniform(0, 60))
    return [x, y, x + random.uniform(1, 40), y + random.uniform(1, 40)]
  }
}

/// Largest |a - b| / max(1, |b|); infinite when the lengths differ or one side alone is NaN.
func error(_ a: [Float], _ b: [Float]) -> Float {
  if a.count != b.count { return .infinity }
  var worst: Float = 0
  for (x, y) in zip(a, b) where !(x.isNaN && y.isNaN) && x != y {
    let gap = abs(x - y) / max(1, abs(y))
    worst = gap.isNaN ? .infinity : max(worst, gap)
  }
  return worst
}

func bits(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }

/// Checks the analytic gradient of `loss(x, gradient)` against central differences.
///
/// The loss is a Double sum of Float terms: with step h = 1e-2 the rounding error of a term (1e-7)
/// gives about 1e-5, and the truncation h^2 f''' / 6 about 2e-5 per unit of third derivative.
func checkGradient(
  _ x: [Float], step: Float = 1e-2, tolerance: Double = 2e-3,
  _ loss: (UnsafePointer<Float>, UnsafeMutablePointer<Float>?) -> Double,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  var gradient = [Float](repeating: .nan, count: x.count)
  let withGradient = loss(x, &gradient)
  #expect(withGradient == loss(x, nil), sourceLocation: sourceLocation)
  for i in x.indices {
    var moved = x
    moved[i] = x[i] + step
    let (above, up) = (loss(moved, nil), moved[i])
    moved[i] = x[i] - step
    let slope = (above - loss(moved, nil)) / Double(up - moved[i])
    #expect(
      abs(slope - Double(gradient[i])) <= tolerance * max(1, abs(slope)),
      "element \(i): difference \(slope), gradient \(gradient[i])", sourceLocation: sourceLocation)
  }
}
