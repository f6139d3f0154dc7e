/// Weights that the channels of an array (outer, channels, inner) share: element (o, c, i) has the
/// weight (o, i). Rows of logits (P, C) have inner = 1, maps (N, C, H, W) inner = H W.
public struct SharedWeights {
  public let values: UnsafePointer<Float>
  public let channels, inner: Int

  public init(_ values: UnsafePointer<Float>, channels: Int, inner: Int) {
    self.values = values
    self.channels = channels
    self.inner = inner
  }

  /// Writes the weights of `count` elements from `start` on.
  @inline(__always)
  func fill(_ out: UnsafeMutablePointer<Float>, from start: Int, count: Int) {
    var done = 0
    while done < count {
      let (plane, offset) = ((start + done) / inner, (start + done) % inner)
      if inner == 1 {
        let length = min(channels - plane % channels, count - done)
        (out + done).update(repeating: values[plane / channels], count: length)
        done += length
      } else {
        let length = min(inner - offset, count - done)
        (out + done).update(from: values + plane / channels * inner + offset, count: length)
        done += length
      }
    }
  }
}

/// What the sigmoids of logits are compared with.
public enum SoftTargets {
  /// Numbers in [0, 1].
  case probabilities
  /// Logits, of which the sigmoid is taken: a teacher's.
  case logits
}

extension Kernels {
  /// Quality focal loss (Li et al. 2020, eq. 4) of logits x with soft targets t in [0, 1], for each
  /// element |sigma(x) - t|^beta BCE(x, t); the sum.
  ///
  /// Gradient, the modulating factor included, with sign(0) = 0 and s = sigma(x):
  /// scale w / T (beta |s - t|^(beta - 1) sign(s - t) s (1 - s) BCE + |s - t|^beta (s - t)).
  /// - Parameters:
  ///   - targets: n numbers, as `kind` says.
  ///   - beta: 0 gives binary cross-entropy.
  ///   - temperature: divides the logits (both, where the targets are logits).
  public static func qualityFocal(
    _ logits: UnsafePointer<Float>, _ targets: UnsafePointer<Float>, _ n: Int, beta: Float,
    kind: SoftTargets = .probabilities, temperature: Float = 1, weights: SharedWeights? = nil,
    scale: Float = 1, gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    let inverse = 1 / temperature
    let call = QualityCall(
      logits: logits, targets: targets, count: n, inverse: inverse, weights: weights,
      scale: scale * inverse, gradient: gradient)
    switch (kind, beta) {
    case (.probabilities, 1): return qualityTotal(call, beta, Linear.self, Given.self)
    case (.probabilities, 2): return qualityTotal(call, beta, Square.self, Given.self)
    case (.probabilities, _): return qualityTotal(call, beta, Power.self, Given.self)
    case (.logits, 0): return qualityTotal(call, beta, Constant.self, Sigmoid.self)
    case (.logits, 1): return qualityTotal(call, beta, Linear.self, Sigmoid.self)
    case (.logits, _): return qualityTotal(call, beta, Power.self, Sigmoid.self)
    }
  }

  /// Quality focal loss with one label and its quality per row instead of dense targets.
  /// - Parameters:
  ///   - logits: (rows, columns), one column per foreground class.
  ///   - labels: (rows); the column whose target is the quality, -1 for background, anything else:
  ///     the row is ignored and its gradient is zero.
  ///   - qualities: (rows), in [0, 1]: the IoU of the predicted box.
  public static func qualityFocal(
    logits: UnsafePointer<Float>, labels: UnsafePointer<Int64>, qualities: UnsafePointer<Float>,
    rows: Int, columns: Int, beta: Float = 2, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: rows, chunk: rowGrain(columns)) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * columns + 1) { buffer in
        let values = buffer.baseAddress!
        var total = 0.0
        for row in range {
          let z = logits + row * columns
          let out = gradient.map { $0 + row * columns } ?? values + columns
          let label = labels[row]
          if label < -1 || label >= columns {
            if gradient != nil { out.update(repeating: 0, count: columns) }
            continue
          }
          if beta == 2 {
            qualityBackground(z, columns, beta, Square.self, values, out, scale)
          } else {
            qualityBackground(z, columns, beta, Power.self, values, out, scale)
          }
          if label >= 0 {
            let quality = qualities[row]
            let term = qualityTerm(z[Int(label)], quality, 1 - quality, beta, Power.self)
            values[Int(label)] = term.value
            out[Int(label)] = scale * term.derivative
          }
          total += Double(sum(values, columns))
        }
        return total
      }
    }
  }

  /// Distribution focal loss (Li et al. 2020, eq. 6): with y between the bins l = floor(y) and l + 1,
  /// - (l + 1 - y) log P(l) - (y - l) log P(l + 1), P = softmax(z); summed over rows.
  ///
  /// Gradient: scale w (P - (l + 1 - y) onehot(l) - (y - l) onehot(l + 1)).
  /// - Parameters:
  ///   - logits: (rows, bins).
  ///   - targets: (rows), in 0...bins - 1; others are brought there.
  ///   - weights: (rows) or nil for 1; rows of weight 0 are skipped.
  public static func distributionFocal(
    _ logits: UnsafePointer<Float>, _ targets: UnsafePointer<Float>, rows: Int, bins: Int,
    weights: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    if bins > 1 && bins <= RowBlock.widest {
      return narrowDistribution(
        DistributionRows(
          logits: logits, targets: targets, bins: bins, weights: weights, scale: scale,
          gradient: gradient), rows: rows)
    }
    return reduceChunks(count: rows, chunk: rowGrain(bins)) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: bins + 1) { buffer in
        var value = 0.0
        for row in range {
          let z = logits + row * bins
          let out = gradient.map { $0 + row * bins }
          let weight = weights?[row] ?? 1
          if weight == 0 {
            out?.update(repeating: 0, count: bins)
            continue
          }
          let y = larger(0, smaller(targets[row], Float(bins - 1)))
          let left = min(Int(y), max(bins - 2, 0))
          let right = min(left + 1, bins - 1)
          let share = y - Float(left)
          let powers = out ?? buffer.baseAddress!
          let (peak, total) = exponentials(z, powers, bins)
          let mean = (1 - share) * (z[left] - peak) + share * (z[right] - peak)
          value += Double(weight) * Double(fastLog(total) - mean)
          if let out {
            let factor = scale * weight
            let normaliser = factor / total
            for i in 0..<bins { out[i] *= normaliser }
            out[left] -= factor * (1 - share)
            out[right] -= factor * share
          }
        }
        return value
      }
    }
  }
}

/// The arguments of one call of `qualityFocal`.
private struct QualityCall {
  let logits, targets: UnsafePointer<Float>
  let count: Int
  let inverse: Float
  let weights: SharedWeights?
  let scale: Float
  let gradient: UnsafeMutablePointer<Float>?
}

// The kinds of terms are types and not closures: closures kept in between stay calls, and a loop with
// a call does not vectorise.

/// a^beta and its derivative for a >= 0.
private protocol Modulation {
  static func at(_ a: Float, _ beta: Float) -> (value: Float, derivative: Float)
}

private enum Constant: Modulation {
  @inline(__always)
  static func at(_ a: Float, _ beta: Float) -> (value: Float, derivative: Float) { (1, 0) }
}

private enum Linear: Modulation {
  @inline(__always)
  static func at(_ a: Float, _ beta: Float) -> (value: Float, derivative: Float) { (a, 1) }
}

private enum Square: Modulation {
  @inline(__always)
  static func at(_ a: Float, _ beta: Float) -> (value: Float, derivative: Float) { (a * a, 2 * a) }
}

/// Any beta; the derivative at 0 is 0.
private enum Power: Modulation {
  @inline(__always)
  static func at(_ a: Float, _ beta: Float) -> (value: Float, derivative: Float) {
    let base = a > 1e-37 ? a : 1e-37
    let power = fastExp(beta * fastLog(base))
    let value = beta == 0 ? 1 : (a > 0 ? power : 0)
    return (value, a > 0 ? beta * power / base : 0)
  }
}

/// Where the target t comes from, with 1 - t.
private protocol SoftTarget {
  static func of(_ y: Float, _ inverse: Float) -> (t: Float, complement: Float)
}

private enum Given: SoftTarget {
  @inline(__always)
  static func of(_ t: Float, _ inverse: Float) -> (t: Float, complement: Float) { (t, 1 - t) }
}

/// sigma(y / T) and 1 - sigma(y / T), each to full relative precision.
private enum Sigmoid: SoftTarget {
  @inline(__always)
  static func of(_ y: Float, _ inverse: Float) -> (t: Float, complement: Float) {
    let x = y * inverse
    let e = fastExp(-abs(x))
    let share = 1 / (1 + e)
    return (x >= 0 ? share : e * share, x >= 0 ? e * share : share)
  }
}

/// The sum over all elements, with the gradient.
private func qualityTotal<M: Modulation, S: SoftTarget>(
  _ call: QualityCall, _ beta: Float, _: M.Type, _: S.Type
) -> Double {
  let (x, y, inverse, scale) = (call.logits, call.targets, call.inverse, call.scale)
  let gradient = call.gradient
  // One loop for both: without weights the factors are 1. A loop of its own without factors was not
  // vectorised for the sigmoid of two logits.
  return reduceChunks(count: call.count) { range in
    withUnsafeTemporaryAllocation(of: Float.self, capacity: range.count) { buffer in
      if let weights = call.weights {
        weights.fill(buffer.baseAddress!, from: range.lowerBound, count: range.count)
      } else {
        buffer.baseAddress!.update(repeating: 1, count: range.count)
      }
      let factors = UnsafePointer(buffer.baseAddress!)
      let first = range.lowerBound
      return elementwiseLoss(range, scale, gradient) { i in
        let (t, complement) = S.of(y[i], inverse)
        let term = qualityTerm(x[i] * inverse, t, complement, beta, M.self)
        let weight = factors[i &- first]
        return (weight * term.value, weight * term.derivative)
      }
    }
  }
}

/// Values and gradient of one row in which every column is a negative.
@inline(__always)
private func qualityBackground<M: Modulation>(
  _ z: UnsafePointer<Float>, _ columns: Int, _ beta: Float, _: M.Type,
  _ values: UnsafeMutablePointer<Float>, _ gradient: UnsafeMutablePointer<Float>, _ scale: Float
) {
  for i in 0..<columns {
    let term = qualityTerm(z[i], 0, 1, beta, M.self)
    values[i] = term.value
    gradient[i] = scale * term.derivative
  }
}

/// |s - t|^beta BCE(x, t) of one element and its derivative by x, with s = sigma(x).
@inline(__always)
private func qualityTerm<M: Modulation>(
  _ x: Float, _ t: Float, _ complement: Float, _ beta: Float, _: M.Type
) -> (value: Float, derivative: Float) {
  let e = fastExp(-abs(x))
  let share = 1 / (1 + e)
  let positive = x >= 0
  let s = positive ? share : e * share
  let rest = positive ? e * share : share
  // Of s - t = (1 - t) - (1 - s) the smaller pair is taken: nothing cancels at large logits.
  let d = positive ? complement - rest : s - t
  let entropy = (positive ? x * complement : -x * t) + fastLog1p(e)
  let (power, slope) = M.at(abs(d), beta)
  let sign: Float = d > 0 ? 1 : (d < 0 ? -1 : 0)
  return (power * entropy, slope * sign * s * rest * entropy + power * d)
}
