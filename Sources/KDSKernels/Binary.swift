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
  /// out = f(a, b) over a loop nest with three operands: a, b and out, where out is contiguous.
  public static func binary(
    _ function: BinaryFunction, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ nest: LoopNest
  ) {
    switch function {
    case .add: zipElements(a, b, out, nest) { $0 + $1 }
    case .subtract: zipElements(a, b, out, nest) { $0 - $1 }
    case .multiply: zipElements(a, b, out, nest) { $0 * $1 }
    case .divide: zipElements(a, b, out, nest) { $0 / $1 }
    case .power: zipElements(a, b, out, nest) { scalarPower($0, $1) }
    // A NaN on either side comes through, so that a broken run shows.
    case .maximum: zipElements(a, b, out, nest) { $0 > $1 || $0 != $0 ? $0 : $1 }
    case .minimum: zipElements(a, b, out, nest) { $0 < $1 || $0 != $0 ? $0 : $1 }
    case .compare(let comparison): compare(comparison, a, b, out, nest)
    }
  }

  private static func compare(
    _ comparison: Comparison, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ nest: LoopNest
  ) {
    switch comparison {
    case .less: zipElements(a, b, out, nest) { $0 < $1 ? 1 : 0 }
    case .lessOrEqual: zipElements(a, b, out, nest) { $0 <= $1 ? 1 : 0 }
    case .greater: zipElements(a, b, out, nest) { $0 > $1 ? 1 : 0 }
    case .greaterOrEqual: zipElements(a, b, out, nest) { $0 >= $1 ? 1 : 0 }
    case .equal: zipElements(a, b, out, nest) { $0 == $1 ? 1 : 0 }
    case .notEqual: zipElements(a, b, out, nest) { $0 != $1 ? 1 : 0 }
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

/// out = f(a, b); rows of the nest are split among threads, or a single row is.
@inline(__always)
private func zipElements(
  _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
  _ nest: LoopNest, _ f: (Float, Float) -> Float
) {
  let (inner, rows) = (nest.inner, nest.rows)
  let (stepA, stepB) = (nest.strides[0].last!, nest.strides[1].last!)
  if rows == 1 {
    parallelFor(count: inner, grain: Kernels.elementwiseGrain) { range in
      let lower = range.lowerBound
      zipRun(a + lower * stepA, b + lower * stepB, out + lower, range.count, stepA, stepB, f)
    }
    return
  }
  parallelFor(count: rows, grain: max(1, Kernels.elementwiseGrain / max(inner, 1))) { range in
    for row in range {
      let (x, y) = (a + nest.offset(0, row: row), b + nest.offset(1, row: row))
      zipRun(x, y, out + row * inner, inner, stepA, stepB, f)
    }
  }
}

/// One run over contiguous (step 1) or repeated (step 0) elements.
@inline(__always)
private func zipRun(
  _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
  _ count: Int, _ stepX: Int, _ stepY: Int, _ f: (Float, Float) -> Float
) {
  if stepX == 1 && stepY == 1 {
    for index in 0..<count { out[index] = f(x[index], y[index]) }
  } else if stepX == 1 {
    let right = y[0]
    for index in 0..<count { out[index] = f(x[index], right) }
  } else {
    let left = x[0]
    for index in 0..<count { out[index] = f(left, stepY == 1 ? y[index] : y[0]) }
  }
}
