#if canImport(Glibc)
  import Glibc
#endif

extension Kernels {
  /// Softmax cross-entropy: sum over rows of rowWeight * (log sum e^z - z[label]).
  ///
  /// Gradient to the logits: scale * rowWeight * (softmax(z) - onehot(label)).
  /// - Parameters:
  ///   - logits: (rows, columns).
  ///   - labels: (rows); a row whose label is `ignoreIndex`, or no column at all, counts nothing and
  ///     gets a zero gradient (`firstInvalidLabel` tells the two apart).
  ///   - rowWeights: (rows) or nil for 1.
  public static func softmaxCrossEntropy(
    logits: UnsafePointer<Float>, labels: UnsafePointer<Int64>, rows: Int, columns: Int,
    ignoreIndex: Int64 = -1, rowWeights: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: rows, chunk: rowGrain(columns)) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: columns + 1) { buffer in
        var value = 0.0
        for row in range {
          let z = logits + row * columns
          let out = gradient.map { $0 + row * columns }
          let weight = rowWeights?[row] ?? 1
          let label = labels[row]
          if label == ignoreIndex || label < 0 || label >= columns || weight == 0 {
            out?.update(repeating: 0, count: columns)
            continue
          }
          let target = Int(label)
          let powers = out ?? buffer.baseAddress!
          let (peak, total) = exponentials(z, powers, columns)
          value += Double(weight) * Double(log(total) - (z[target] - peak))
          if let out {
            let factor = scale * weight
            let share = factor / total
            for i in 0..<columns { out[i] *= share }
            out[target] -= factor
          }
        }
        return value
      }
    }
  }

  /// Row of the first label that is neither `ignoreIndex` nor in 0..<classes, or nil.
  public static func firstInvalidLabel(
    _ labels: UnsafePointer<Int64>, _ n: Int, classes: Int, ignoreIndex: Int64 = -1
  ) -> Int? {
    (0..<n).first { labels[$0] != ignoreIndex && (labels[$0] < 0 || labels[$0] >= classes) }
  }

  /// Weighted soft cross-entropy of Chen et al. 2017, eq. 2 and 3:
  /// `- sum_c w_c P_t(c) log P_s(c)` with P = softmax(z / temperature), summed over rows.
  ///
  /// Gradient to the student's logits only:
  /// scale * rowWeight / temperature * (P_s(k) sum_c w_c P_t(c) - w_k P_t(k)).
  /// No temperature^2 factor is applied: the paper has none.
  /// - Parameters:
  ///   - student: (rows, columns) logits; teacher: likewise.
  ///   - classWeights: (columns) or nil for 1; the paper has 1.5 for background, 1 for the others.
  ///   - rowWeights: (rows) or nil for 1; rows of weight 0 are skipped.
  public static func weightedSoftCrossEntropy(
    student: UnsafePointer<Float>, teacher: UnsafePointer<Float>, rows: Int, columns: Int,
    classWeights: UnsafePointer<Float>? = nil, temperature: Float = 1,
    rowWeights: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    reduceChunks(count: rows, chunk: rowGrain(columns)) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * columns + 1) { buffer in
        let targets = buffer.baseAddress!
        var value = 0.0
        for row in range {
          let out = gradient.map { $0 + row * columns }
          let weight = rowWeights?[row] ?? 1
          if weight == 0 {
            out?.update(repeating: 0, count: columns)
            continue
          }
          let loss = softRow(
            student + row * columns, teacher + row * columns, columns, classWeights,
            1 / temperature, targets, powers: out ?? targets + columns,
            factor: out == nil ? nil : scale * weight / temperature)
          value += Double(weight) * Double(loss)
        }
        return value
      }
    }
  }

  /// One row of `weightedSoftCrossEntropy`; with `factor`, `powers` ends as the gradient.
  @inline(__always)
  private static func softRow(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, _ columns: Int,
    _ classWeights: UnsafePointer<Float>?, _ inverse: Float,
    _ targets: UnsafeMutablePointer<Float>, powers: UnsafeMutablePointer<Float>, factor: Float?
  ) -> Float {
    if columns <= 0 { return 0 }
    let normaliser = 1 / exponentials(teacher, targets, columns, scale: inverse).total
    if let classWeights {
      for i in 0..<columns { targets[i] *= normaliser * classWeights[i] }
    } else {
      for i in 0..<columns { targets[i] *= normaliser }
    }
    let mass = sum(targets, columns)
    let (peak, total) = exponentials(student, powers, columns, scale: inverse)
    let shift = log(total)
    if let factor {
      // The gradient is written over the exponentials; the student's logits are still at hand.
      let share = mass / total
      for i in 0..<columns { powers[i] = factor * (powers[i] * share - targets[i]) }
    }
    for i in 0..<columns { targets[i] *= shift - (student[i] - peak) * inverse }
    return sum(targets, columns)
  }
}
