/// A function of one number, applied to every element.
public enum UnaryFunction: Equatable {
  case negate, exp, log, sqrt, abs, relu, sigmoid, tanh, square
  /// x Φ(x), Φ being the standard normal distribution.
  case gelu
  /// x + value
  case offset(Float)
  /// x * value
  case scale(Float)
  /// value / x
  case reciprocal(Float)
  /// x ^ exponent
  case power(Float)
  /// min(max(x, low), high)
  case clamp(Float, Float)
  /// 1 where `x ? value` holds, else 0.
  case compare(Comparison, Float)

  /// Whether f(0) = 0, so that zero padding stays zero.
  public var keepsZero: Bool {
    switch self {
    case .negate, .sqrt, .abs, .relu, .tanh, .square, .gelu: return true
    case .scale(let value): return value.isFinite
    case .power(let exponent): return exponent > 0
    case .clamp(let low, let high): return low <= 0 && high >= 0
    default: return false
    }
  }
}

/// How two numbers are compared; NaN is unequal to everything.
public enum Comparison: String, CaseIterable {
  case less, lessOrEqual, greater, greaterOrEqual, equal, notEqual
}

extension Kernels {
  /// out[i] = f(x[i])
  public static func unary(
    _ function: UnaryFunction, _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain / function.cost) { range in
      let lower = range.lowerBound
      run(function, x + lower, out + lower, range.count)
    }
  }

  /// The choice of function stands inside the parallel region: a function passed into it as a
  /// closure would be called for every element.
  private static func run(
    _ function: UnaryFunction, _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    _ count: Int
  ) {
    switch function {
    case .negate: mapElements(x, out, count) { -$0 }
    case .exp: mapElements(x, out, count) { fastExp($0) }
    case .log: mapElements(x, out, count) { scalarLog($0) }
    case .sqrt: mapElements(x, out, count) { $0.squareRoot() }
    case .abs: mapElements(x, out, count) { Swift.abs($0) }
    case .relu: mapElements(x, out, count) { $0 < 0 ? 0 : $0 }
    case .sigmoid: mapElements(x, out, count) { fastSigmoid($0) }
    case .tanh: mapElements(x, out, count) { scalarTanh($0) }
    case .square: mapElements(x, out, count) { $0 * $0 }
    case .gelu: mapElements(x, out, count) { scalarGELU($0) }
    case .offset(let value): mapElements(x, out, count) { $0 + value }
    case .scale(let value): mapElements(x, out, count) { $0 * value }
    case .reciprocal(let value): mapElements(x, out, count) { value / $0 }
    case .power(let exponent): power(exponent, x, out, count)
    case .clamp(let low, let high):
      mapElements(x, out, count) {
        let raised = $0 < low ? low : $0
        return raised > high ? high : raised
      }
    case .compare(let comparison, let value): compare(comparison, value, x, out, count)
    }
  }

  private static func power(
    _ exponent: Float, _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    switch exponent {
    case 1: mapElements(x, out, count) { $0 }
    case 2: mapElements(x, out, count) { $0 * $0 }
    case 3: mapElements(x, out, count) { $0 * $0 * $0 }
    case 0.5: mapElements(x, out, count) { $0.squareRoot() }
    case -1: mapElements(x, out, count) { 1 / $0 }
    default: mapElements(x, out, count) { scalarPower($0, exponent) }
    }
  }

  private static func compare(
    _ comparison: Comparison, _ value: Float, _ x: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    switch comparison {
    case .less: mapElements(x, out, count) { $0 < value ? 1 : 0 }
    case .lessOrEqual: mapElements(x, out, count) { $0 <= value ? 1 : 0 }
    case .greater: mapElements(x, out, count) { $0 > value ? 1 : 0 }
    case .greaterOrEqual: mapElements(x, out, count) { $0 >= value ? 1 : 0 }
    case .equal: mapElements(x, out, count) { $0 == value ? 1 : 0 }
    case .notEqual: mapElements(x, out, count) { $0 != value ? 1 : 0 }
    }
  }

  /// out[i] = g[i] * f'(x[i]), where y[i] = f(x[i]); only the operand that the derivative is
  /// written in is read (see `UnaryFunction.derivativeNeeds`).
  public static func unaryGradient(
    _ function: UnaryFunction, input x: UnsafePointer<Float>, output y: UnsafePointer<Float>,
    _ g: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain / function.cost) { range in
      let lower = range.lowerBound
      gradient(function, x + lower, y + lower, g + lower, out + lower, range.count)
    }
  }

  private static func gradient(
    _ function: UnaryFunction, _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>,
    _ g: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    switch function {
    case .negate: mapElements(g, out, count) { -$0 }
    case .offset: mapElements(g, out, count) { $0 }
    case .scale(let value): mapElements(g, out, count) { $0 * value }
    case .exp: zipElements(g, y, out, count) { $0 * $1 }
    case .log: zipElements(g, x, out, count) { $0 / $1 }
    case .sqrt: zipElements(g, y, out, count) { 0.5 * $0 / $1 }
    case .abs: zipElements(g, x, out, count) { $1 > 0 ? $0 : ($1 < 0 ? -$0 : 0) }
    case .relu: zipElements(g, y, out, count) { $1 > 0 ? $0 : 0 }
    case .sigmoid: zipElements(g, y, out, count) { $0 * $1 * (1 - $1) }
    case .tanh: zipElements(g, y, out, count) { $0 * (1 - $1 * $1) }
    case .square: zipElements(g, x, out, count) { 2 * $0 * $1 }
    case .gelu: zipElements(g, x, out, count) { $0 * scalarGELUSlope($1) }
    case .reciprocal(let value): zipElements(g, x, out, count) { -$0 * value / ($1 * $1) }
    case .power(let exponent):
      zipElements(g, x, out, count) { $0 * exponent * scalarPower($1, exponent - 1) }
    case .clamp(let low, let high):
      zipElements(g, x, out, count) { $1 >= low && $1 <= high ? $0 : 0 }
    case .compare: out.update(repeating: 0, count: count)
    }
  }
}

extension UnaryFunction {
  /// Rough price of one evaluation, in additions.
  var cost: Int {
    switch self {
    case .exp, .log, .sigmoid, .tanh, .gelu: return 8
    case .power: return 32
    default: return 1
    }
  }

  /// Which operand the derivative is computed from.
  public enum Needs { case nothing, input, output }

  public var derivativeNeeds: Needs {
    switch self {
    case .negate, .offset, .scale, .compare: return .nothing
    case .exp, .sqrt, .relu, .sigmoid, .tanh: return .output
    case .log, .abs, .square, .gelu, .reciprocal, .power, .clamp: return .input
    }
  }
}

/// out[i] = f(a[i])
@inline(__always)
func mapElements(
  _ a: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int,
  _ f: (Float) -> Float
) {
  for index in 0..<count { out[index] = f(a[index]) }
}

/// out[i] = f(a[i], b[i])
@inline(__always)
func zipElements(
  _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
  _ count: Int, _ f: (Float, Float) -> Float
) {
  for index in 0..<count { out[index] = f(a[index], b[index]) }
}
