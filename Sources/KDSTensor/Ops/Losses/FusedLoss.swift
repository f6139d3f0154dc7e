import KDSKernels

/// How the values of a loss become one number.
public enum Reduction: String, Codable, CaseIterable {
  /// As published; each loss says what that is.
  case paper
  /// Sum divided by the number of rows or elements that count.
  case mean
  /// Sum.
  case sum
  /// No reduction: one value per row or element.
  case none
}

/// A loss whose kernel computes value and gradient in one pass, over `rows` independent rows.
struct FusedLoss {
  let name: String
  /// The tensor that the gradient goes to, in the layout that the kernel reads.
  let student: Tensor
  /// Another tensor that gets the negative gradient, for losses of the difference of two tensors.
  var mirror: Tensor?
  let rows: Int
  /// Elements of the student per row.
  let columns: Int
  /// Shape of the result without reduction; its count is `rows`.
  let shape: [Int]
  /// Sum over a range of rows; writes scale × gradient from the given pointer on, if there is one.
  let kernel: (Range<Int>, Float, UnsafeMutablePointer<Float>?) -> Double

  /// The loss as a scalar, factor × sum.
  func reduced(factor: Double) throws -> Tensor {
    let inputs = [student] + (mirror.map { [$0] } ?? [])
    let gradient = Tape.tracks(inputs) ? try student.uninitializedLike() : nil
    let result = try Tensor.scalar(
      Float(kernel(0..<rows, Float(factor), gradient?.floats) * factor))
    guard let gradient else { return result }
    return record(result, inputs) { incoming in
      let share = incoming.item
      return share == 1 ? gradient : try gradient.multiplied(by: share)
    }
  }

  /// One value per row.
  func unreduced() throws -> Tensor {
    let inputs = [student] + (mirror.map { [$0] } ?? [])
    let gradient = Tape.tracks(inputs) ? try Tensor(uninitialized: [rows, columns]) : nil
    let result = try Tensor(uninitialized: shape)
    let (values, slopes) = (result.floats, gradient?.floats)
    parallelFor(count: rows, grain: max(1, 1024 / max(1, columns))) { range in
      for row in range {
        values[row] = Float(kernel(row..<(row + 1), 1, slopes.map { $0 + row * columns }))
      }
    }
    guard let gradient else { return result }
    let (rows, target) = (rows, student.shape)
    return record(result, inputs) { incoming in
      try gradient.multiplied(by: incoming.reshaped([rows, 1])).reshaped(target)
    }
  }

  /// By name: sum, mean over rows (0 when there are none) or one value per row.
  func reduced(_ reduction: Reduction) throws -> Tensor {
    switch reduction {
    case .sum: return try reduced(factor: 1)
    case .mean, .paper: return try reduced(factor: rows > 0 ? 1 / Double(rows) : 0)
    case .none: return try unreduced()
    }
  }

  private func record(
    _ result: Tensor, _ inputs: [Tensor], _ gradient: @escaping (Tensor) throws -> Tensor
  ) -> Tensor {
    let (first, second) = (student.isTracked, mirror?.isTracked ?? false)
    let hasMirror = mirror != nil
    return Tape.record(result, name, inputs) { incoming in
      let own = try gradient(incoming)
      return [first ? own : nil] + (hasMirror ? [second ? try own.negated() : nil] : [])
    }
  }
}

/// Two tensors of one shape in one layout, for losses that are 0 where both are 0.
func lossPair(_ name: String, _ student: Tensor, _ teacher: Tensor) throws -> (Tensor, Tensor) {
  try requireFloats(name, [student, teacher])
  try requireSameShape(name, "both tensors", student.shape, teacher.shape)
  return (student, try teacher.inLayout(student.layout))
}

/// Rows of an (N, C…) tensor as (rows, columns), plain; at least one column.
func lossRows(_ name: String, _ tensor: Tensor, columns: Int? = nil) throws -> Tensor {
  try requireFloats(name, [tensor])
  guard tensor.rank == 2, tensor.shape[1] > 0, columns == nil || tensor.shape[1] == columns else {
    throw KDSError.shape(
      "\(name): needs a tensor (rows, \(columns.map(String.init) ?? "classes")), got \(tensor.shape)"
    )
  }
  return try tensor.plain()
}
