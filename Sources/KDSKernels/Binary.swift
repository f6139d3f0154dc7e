/// A function of two numbers, applied element by element.
public enum BinaryFunction: Equatable {
  case add, subtract, multiply, divide, power, maximum, minimum
  case compare(Comparison)

  /// Whether f(0, 0) = 0, so that zero padding on both sides stays zero.
  public var keepsZero: Bool {
    switch self {
    case .add, .subtract, .multiply, .maximum, .minimum: return true
    case .divide, .power, .compare: return false
    }
  }
}

extension Kernels {
  /// out = f(a, b) over a loop nest with two operands, a and b; out is contiguous.
  public static func binary(
    _ function: BinaryFunction, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ nest: LoopNest
  ) {
    let (inner, rows) = (nest.inner, nest.rows)
    let steps = (nest.strides[0].last!, nest.strides[1].last!)
    if rows == 1 {
      parallelFor(count: inner, grain: elementwiseGrain) { range in
        let lower = range.lowerBound
        run(function, a + lower * steps.0, b + lower * steps.1, out + lower, range.count, steps)
      }
      return
    }
    // Runs may be as short as a channel block, so the loop around them adds instead of dividing.
    let middle = nest.sizes[nest.sizes.count - 2]
    let hops = nest.strides.map { $0[$0.count - 2] }
    let (hopA, hopB) = (hops[0], hops[1])
    parallelFor(count: rows, grain: max(1, elementwiseGrain / max(inner, 1))) { range in
      var row = range.lowerBound
      while row < range.upperBound {
        let count = min(middle - row % middle, range.upperBound - row)
        var (x, y) = (a + nest.offset(0, row: row), b + nest.offset(1, row: row))
        for target in row..<(row + count) {
          run(function, x, y, out + target * inner, inner, steps)
          x += hopA
          y += hopB
        }
        row += count
      }
    }
  }

  /// The choice of function stands inside the parallel region: a function passed into it as a
  /// closure would be called for every element.
  private static func run(
    _ function: BinaryFunction, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int, _ steps: (Int, Int)
  ) {
    switch function {
    case .add: zipRun(a, b, out, count, steps) { $0 + $1 }
    case .subtract: zipRun(a, b, out, count, steps) { $0 - $1 }
    case .multiply: zipRun(a, b, out, count, steps) { $0 * $1 }
    case .divide: zipRun(a, b, out, count, steps) { $0 / $1 }
    case .power: zipRun(a, b, out, count, steps) { scalarPower($0, $1) }
    // A NaN on either side comes through, so that a broken run shows.
    case .maximum: zipRun(a, b, out, count, steps) { $0 > $1 || $0 != $0 ? $0 : $1 }
    case .minimum: zipRun(a, b, out, count, steps) { $0 < $1 || $0 != $0 ? $0 : $1 }
    case .compare(let comparison): compare(comparison, a, b, out, count, steps)
    }
  }

  private static func compare(
    _ comparison: Comparison, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int, _ steps: (Int, Int)
  ) {
    switch comparison {
    case .less: zipRun(a, b, out, count, steps) { $0 < $1 ? 1 : 0 }
    case .lessOrEqual: zipRun(a, b, out, count, steps) { $0 <= $1 ? 1 : 0 }
    case .greater: zipRun(a, b, out, count, steps) { $0 > $1 ? 1 : 0 }
    case .greaterOrEqual: zipRun(a, b, out, count, steps) { $0 >= $1 ? 1 : 0 }
    case .equal: zipRun(a, b, out, count, steps) { $0 == $1 ? 1 : 0 }
    case .notEqual: zipRun(a, b, out, count, steps) { $0 != $1 ? 1 : 0 }
    }
  }

  /// out[i] = condition[i] != 0 ? a[i] : b[i]
  public static func choose(
    _ condition: UnsafePointer<Float>, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = condition[index] != 0 ? a[index] : b[index] }
    }
  }

  /// out = g where a is the larger (or, with `largest` false, the smaller), g / 2 on a tie, else 0.
  public static func extremeGradient(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ g: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int, largest: Bool
  ) {
    let sign: Float = largest ? 1 : -1
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range {
        let difference = sign * (a[index] - b[index])
        out[index] = difference > 0 ? g[index] : (difference == 0 ? 0.5 * g[index] : 0)
      }
    }
  }
}

/// One run over contiguous (step 1) or repeated (step 0) elements.
@inline(__always)
private func zipRun(
  _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
  _ count: Int, _ steps: (Int, Int), _ f: (Float, Float) -> Float
) {
  if count == 0 { return }
  if steps.0 == 1 && steps.1 == 1 {
    for index in 0..<count { out[index] = f(x[index], y[index]) }
  } else if steps.0 == 1 {
    let right = y[0]
    for index in 0..<count { out[index] = f(x[index], right) }
  } else if steps.1 == 1 {
    let left = x[0]
    for index in 0..<count { out[index] = f(left, y[index]) }
  } else {
    out.update(repeating: f(x[0], y[0]), count: count)
  }
}
