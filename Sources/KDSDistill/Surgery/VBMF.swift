import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// Rank of a noisy matrix by the global analytic solution of empirical variational Bayes matrix
/// factorization (Nakajima et al. 2013, JMLR 14), which Kim et al. 2016 use to choose Tucker ranks.
///
/// The estimate depends on the singular values and the two sizes alone.
public struct VBMF: Equatable {
  /// Singular values above the threshold; 0 for pure noise.
  public let rank: Int
  public let noiseVariance: Double
  /// sqrt(M σ² x_ub): what a singular value must exceed.
  public let threshold: Double
  /// The posterior's singular values, for those that are kept.
  public let shrunk: [Double]
  /// Interval in which the noise variance was sought.
  public let searched: ClosedRange<Double>
  /// Bound x_ub on s² / (M σ²) up to which a component counts as noise.
  public let bound: Double

  /// - Parameters:
  ///   - singularValues: all min(rows, columns) of them, in any order.
  ///   - exactBound: solves for the bound instead of taking 2.5129 sqrt(L / M), the approximation of
  ///     the public ports.
  public init(
    singularValues: [Double], rows: Int, columns: Int, exactBound: Bool = false
  ) throws {
    let (short, long) = (min(rows, columns), max(rows, columns))
    guard short > 0, singularValues.count == short, singularValues.allSatisfy(\.isFinite) else {
      throw KDSError.argument(
        "vbmf: \(singularValues.count) finite singular values for a \(rows)x\(columns) matrix")
    }
    let problem = Problem(singularValues, short, long, exactBound: exactBound)
    let interval = problem.interval()
    let variance = problem.minimize(in: interval)
    let limit = (Double(long) * variance * problem.bound).squareRoot()
    noiseVariance = variance
    threshold = limit
    searched = interval
    bound = problem.bound
    let kept = problem.values.filter { $0 > limit }
    rank = kept.count
    shrunk = kept.map { value in
      let (l, m, square) = (Double(short), Double(long), value * value)
      let share = 1 - (l + m) * variance / square
      let root = share * share - 4 * l * m * variance * variance / (square * square)
      return value / 2 * (share + max(0, root).squareRoot())
    }
  }

  /// tau with Φ(tau) + Φ(tau / a) = 0, Φ(z) = log(z + 1) / z − 1/2, by bisection.
  package static func exactTau(_ a: Double) -> Double {
    func phi(_ z: Double) -> Double { log(z + 1) / z - 0.5 }
    var (low, high) = (1e-12, 100.0)
    for _ in 0..<200 {
      let middle = (low + high) / 2
      if phi(middle) + phi(middle / a) > 0 { low = middle } else { high = middle }
    }
    return (low + high) / 2
  }
}

/// The one-dimensional problem in the noise variance.
private struct Problem {
  /// Descending.
  let values: [Double]
  /// Squares, kept above rounding error so that a matrix of exactly low rank has finite logarithms.
  private let squares: [Double]
  private let long: Double
  private let ratio: Double
  let bound: Double

  init(_ singularValues: [Double], _ short: Int, _ long: Int, exactBound: Bool) {
    values = singularValues.map(abs).sorted(by: >)
    let floor = max(values[0] * values[0] * 1e-13, .leastNormalMagnitude)
    squares = values.map { max($0 * $0, floor) }
    self.long = Double(long)
    ratio = Double(short) / Double(long)
    let tau = exactBound ? VBMF.exactTau(ratio) : 2.5129 * ratio.squareRoot()
    bound = (1 + tau) * (1 + ratio / tau)
  }

  /// Where the variance can lie: at most everything is noise, at least the tail is.
  func interval() -> ClosedRange<Double> {
    let count = squares.count
    let high = squares.reduce(0, +) / (Double(count) * long)
    let last = min(Int((Double(count) / (1 + ratio)).rounded(.up)) - 1, count) - 1
    let tail = squares[min(last + 1, count - 1)...]
    let low = max(
      tail[tail.startIndex] / (long * bound), tail.reduce(0, +) / Double(tail.count) / long)
    return min(low, high)...high
  }

  /// Grid on a logarithmic scale, then golden section around its best point.
  func minimize(in interval: ClosedRange<Double>) -> Double {
    let (low, high) = (log(interval.lowerBound), log(interval.upperBound))
    if !(high > low) { return interval.upperBound }
    let steps = 400
    let width = (high - low) / Double(steps)
    let best = (0...steps).map { cost(exp(low + Double($0) * width)) }.enumerated()
      .min { $0.element < $1.element }!.offset
    var (left, right) = (
      low + Double(max(0, best - 1)) * width, low + Double(min(steps, best + 1)) * width
    )
    let golden = (5.0.squareRoot() - 1) / 2
    for _ in 0..<100 {
      let (a, b) = (right - golden * (right - left), left + golden * (right - left))
      if cost(exp(a)) <= cost(exp(b)) { right = b } else { left = a }
    }
    return exp((left + right) / 2)
  }

  /// Free energy up to constants.
  private func cost(_ variance: Double) -> Double {
    squares.reduce(0) { sum, square in
      let x = square / (long * variance)
      if x <= bound { return sum + x - log(x) }
      let centered = x - (1 + ratio)
      let tau = 0.5 * (centered + max(0, centered * centered - 4 * ratio).squareRoot())
      return sum + x - tau + log((tau + 1) / x) + ratio * log(tau / ratio + 1)
    }
  }
}
