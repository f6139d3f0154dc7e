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
    case (.probabilities, 1): return call.total({ ($0, 1) }, targetOf)
    case (.probabilities, 2): return call.total({ ($0 * $0, 2 * $0) }, targetOf)
    case (.probabilities, _): return call.total({ modulation($0, beta) }, targetOf)
    case (.logits, 0): return call.total({ _ in (1, 0) }, sigmoidOf)
    case (.logits, 1): return call.total({ ($0, 1) }, sigmoidOf)
    case (.logits, _): return call.total({ modulation($0, beta) }, sigmoidOf)
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
            for i in 0..<columns {
              let term = qualityTerm(z[i], 0, 1) { ($0 * $0, 2 * $0) }
              values[i] = term.value
              out[i] = scale * term.derivative
            }
          } else {
            for i in 0..<columns {
              let term = qualityTerm(z[i], 0, 1) { modulation($0, beta) }
              values[i] = term.value
              out[i] = scale * term.derivative
            }
          }
          if label >= 0 {
            let quality = qualities[row]
            let term = qualityTerm(z[Int(label)], quality, 1 - quality) { modulation($0, beta) }
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
    reduceChunks(count: rows, chunk: rowGrain(bins)) { range in
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

  /// The sum; `modulate` gives a^beta and its derivative, `target` t and 1 - t.
  @inline(__always)
  func total(
    _ modulate: (Float) -> (value: Float, derivative: Float),
    _ target: (Float) -> (t: Float, complement: Float)
  ) -> Double {
    let (x, y, inverse, scale, weights) = (logits, targets, inverse, scale, weights)
    guard let weights else {
      return reduceChunks(count: count) {
        elementwiseLoss($0, scale, gradient) { i in
          let (t, complement) = target(y[i] * inverse)
          return qualityTerm(x[i] * inverse, t, complement, modulate)
        }
      }
    }
    return reduceChunks(count: count) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: range.count) { buffer in
        let factors = buffer.baseAddress!
        weights.fill(factors, from: range.lowerBound, count: range.count)
        let first = range.lowerBound
        return elementwiseLoss(range, scale, gradient) { i in
          let (t, complement) = target(y[i] * inverse)
          let term = qualityTerm(x[i] * inverse, t, complement, modulate)
          let weight = factors[i &- first]
          return (weight * term.value, weight * term.derivative)
        }
      }
    }
  }
}

@inline(__always)
private func targetOf(_ t: Float) -> (t: Float, complement: Float) { (t, 1 - t) }

/// sigma(y) and 1 - sigma(y), each to full relative precision.
@inline(__always)
private func sigmoidOf(_ y: Float) -> (t: Float, complement: Float) {
  let e = fastExp(-abs(y))
  let share = 1 / (1 + e)
  return (y >= 0 ? share : e * share, y >= 0 ? e * share : share)
}

/// a^beta and its derivative for a >= 0; the derivative at 0 is 0.
@inline(__always)
private func modulation(_ a: Float, _ beta: Float) -> (value: Float, derivative: Float) {
  if beta == 0 { return (1, 0) }
  let base = a > 1e-37 ? a : 1e-37
  let power = fastExp(beta * fastLog(base))
  return (a > 0 ? power : 0, a > 0 ? beta * power / base : 0)
}

/// |s - t|^beta BCE(x, t) of one element and its derivative by x, with s = sigma(x).
@inline(__always)
private func qualityTerm(
  _ x: Float, _ t: Float, _ complement: Float,
  _ modulate: (Float) -> (value: Float, derivative: Float)
) -> (value: Float, derivative: Float) {
  let e = fastExp(-abs(x))
  let share = 1 / (1 + e)
  let positive = x >= 0
  let s = positive ? share : e * share
  let rest = positive ? e * share : share
  // Of s - t = (1 - t) - (1 - s) the smaller pair is taken: nothing cancels at large logits.
  let d = positive ? complement - rest : s - t
  let entropy = (positive ? x * complement : -x * t) + fastLog1p(e)
  let (power, slope) = modulate(abs(d))
  let sign: Float = d > 0 ? 1 : (d < 0 ? -1 : 0)
  return (power * entropy, slope * sign * s * rest * entropy + power * d)
}
