extension Kernels {
  /// Binary cross-entropy on logits x with targets t in [0, 1]:
  /// sum w (max(x, 0) - x t + log(1 + e^-|x|)); gradient scale * w (sigmoid(x) - t).
  /// - Parameter weights: (n) or nil for 1.
  public static func binaryCrossEntropyWithLogits(
    _ logits: UnsafePointer<Float>, _ targets: UnsafePointer<Float>, _ n: Int,
    weights: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    if let weights {
      return reduceChunks(count: n) {
        elementwiseLoss($0, scale, gradient) { i in
          let (value, slope) = binaryTerm(logits[i], targets[i])
          return (weights[i] * value, weights[i] * slope)
        }
      }
    }
    return reduceChunks(count: n) {
      elementwiseLoss($0, scale, gradient) { i in
        binaryTerm(logits[i], targets[i])
      }
    }
  }

  /// Sigmoid focal loss (Lin et al., 2017; `torchvision.ops.sigmoid_focal_loss`) on dense 0/1
  /// targets: sum alpha_t (1 - p_t)^gamma (- log p_t).
  /// - Parameters:
  ///   - targets: (n); above 0.5 is positive.
  ///   - alpha: weight of positives, 1 - alpha of negatives; negative for no weighting.
  public static func sigmoidFocal(
    _ logits: UnsafePointer<Float>, _ targets: UnsafePointer<Float>, _ n: Int,
    alpha: Float = 0.25, gamma: Float = 2, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    let positive: Float = alpha >= 0 ? alpha : 1
    let negative: Float = alpha >= 0 ? 1 - alpha : 1
    return reduceChunks(count: n) {
      elementwiseLoss($0, scale, gradient) { i in
        let sign: Float = targets[i] > 0.5 ? 1 : -1
        let (value, slope) = focalTerm(sign * logits[i], gamma)
        let weight = targets[i] > 0.5 ? positive : negative
        return (weight * value, weight * sign * slope)
      }
    }
  }

  /// Sigmoid focal loss with one label per row instead of dense targets.
  /// - Parameters:
  ///   - logits: (rows, columns), one column per foreground class.
  ///   - labels: (rows); the positive column, -1 for background, anything else: the row is ignored
  ///     and its gradient is zero.
  public static func sigmoidFocal(
    logits: UnsafePointer<Float>, labels: UnsafePointer<Int64>, rows: Int, columns: Int,
    alpha: Float = 0.25, gamma: Float = 2, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    let positive: Float = alpha >= 0 ? alpha : 1
    let negative: Float = alpha >= 0 ? 1 - alpha : 1
    return reduceChunks(count: rows, chunk: rowGrain(columns)) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: columns + 1) { buffer in
        let values = buffer.baseAddress!
        var total = 0.0
        for row in range {
          let z = logits + row * columns
          let out = gradient.map { $0 + row * columns }
          let label = labels[row]
          if label < -1 || label >= columns {
            out?.update(repeating: 0, count: columns)
            continue
          }
          focalBackground(z, columns, gamma, negative, values, out, scale)
          if label >= 0 {
            let (value, slope) = focalTerm(z[Int(label)], gamma)
            values[Int(label)] = positive * value
            out?[Int(label)] = scale * positive * slope
          }
          total += Double(sum(values, columns))
        }
        return total
      }
    }
  }

  /// Focal values and gradient of one row in which every column is a negative.
  @inline(__always)
  private static func focalBackground(
    _ z: UnsafePointer<Float>, _ columns: Int, _ gamma: Float, _ weight: Float,
    _ values: UnsafeMutablePointer<Float>, _ gradient: UnsafeMutablePointer<Float>?, _ scale: Float
  ) {
    if let gradient {
      for i in 0..<columns {
        let (value, slope) = focalTerm(-z[i], gamma)
        values[i] = weight * value
        gradient[i] = -scale * weight * slope
      }
    } else {
      for i in 0..<columns { values[i] = weight * focalTerm(-z[i], gamma).value }
    }
  }
}

@inline(__always)
private func binaryTerm(_ x: Float, _ t: Float) -> (value: Float, derivative: Float) {
  let e = fastExp(-abs(x))
  let value = (x > 0 ? x : 0) - x * t + fastLog1p(e)
  return (value, (x >= 0 ? 1 : e) / (1 + e) - t)
}

/// Focal loss of the margin z (the logit, negated for a negative) with p = sigmoid(z):
/// (1 - p)^gamma (- log p) and its derivative - (1 - p)^gamma ((1 - p) - gamma p log p).
@inline(__always)
private func focalTerm(_ z: Float, _ gamma: Float) -> (value: Float, derivative: Float) {
  let e = fastExp(-abs(z))
  let tail = fastLog1p(e)
  let share = 1 / (1 + e)
  let p = z >= 0 ? share : e * share
  let complement = z >= 0 ? e * share : share
  let entropy = (z > 0 ? 0 : -z) + tail
  // log(1 - p) = -softplus(z), so no power function is needed.
  let modulation = fastExp(-gamma * ((z > 0 ? z : 0) + tail))
  return (modulation * entropy, -modulation * (complement + gamma * p * entropy))
}
