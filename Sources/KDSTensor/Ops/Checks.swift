// Argument checks shared by the operations; every message names the operation and the shapes.

/// Throws unless all tensors hold floats.
func requireFloats(_ name: String, _ tensors: [Tensor]) throws {
  for (index, tensor) in tensors.enumerated() where tensor.dtype != .float32 {
    throw KDSError.argument(
      "\(name): argument \(index + 1) must be float32, not \(tensor.dtype) of shape \(tensor.shape); "
        + "convert it first")
  }
}

/// Throws unless the tensor holds integers.
func requireIntegers(_ name: String, _ what: String, _ tensor: Tensor) throws {
  if tensor.dtype != .int64 {
    throw KDSError.argument("\(name): \(what) must be int64, not \(tensor.dtype)")
  }
}

/// Throws unless a shape can exist: no negative size, and at most 2^40 elements.
@discardableResult
func requireSize(_ name: String, _ shape: [Int]) throws -> [Int] {
  var count = 1
  for size in shape {
    let (product, overflow) = count.multipliedReportingOverflow(by: max(size, 1))
    if size < 0 || overflow || product > 1 << 40 {
      throw KDSError.shape("\(name): a tensor of shape \(shape) is not possible")
    }
    count = product
  }
  return shape
}

/// Throws unless both shapes are equal.
func requireSameShape(_ name: String, _ what: String, _ a: [Int], _ b: [Int]) throws {
  if a != b { throw KDSError.shape("\(name): \(what) must have one shape, got \(a) and \(b)") }
}

/// The axis counted from the front; negative ones count from the back.
func normalizedAxis(_ name: String, _ axis: Int, _ shape: [Int]) throws -> Int {
  guard axis >= -shape.count, axis < shape.count else {
    throw KDSError.argument("\(name): axis \(axis) is outside the shape \(shape)")
  }
  return axis < 0 ? axis + shape.count : axis
}

/// Axes counted from the front, each at most once; nil and [] mean all of them.
func normalizedAxes(_ name: String, _ axes: [Int]?, _ shape: [Int]) throws -> [Int] {
  guard let axes, !axes.isEmpty else { return Array(shape.indices) }
  let result = try axes.map { try normalizedAxis(name, $0, shape) }
  if Set(result).count != result.count {
    throw KDSError.argument("\(name): axes \(axes) name one axis of \(shape) twice")
  }
  return result
}

/// NumPy's broadcasting: shapes are aligned at the end, and a size 1 stretches.
func broadcastShape(_ name: String, _ a: [Int], _ b: [Int]) throws -> [Int] {
  if a == b { return a }
  let rank = max(a.count, b.count)
  let (first, second) = (leftPadded(a, to: rank), leftPadded(b, to: rank))
  let shape = try (0..<rank).map { axis in
    if first[axis] == second[axis] || second[axis] == 1 { return first[axis] }
    if first[axis] == 1 { return second[axis] }
    throw KDSError.shape("\(name): shapes \(a) and \(b) do not broadcast together")
  }
  return try requireSize(name, shape)
}

/// The shape with leading ones up to the given rank.
func leftPadded(_ shape: [Int], to rank: Int) -> [Int] {
  [Int](repeating: 1, count: rank - shape.count) + shape
}

extension Tensor {
  /// Sizes in the order of memory: the shape, or (N, ceil(C/block), H, W, block).
  var memoryShape: [Int] {
    guard case .blocked(let block) = layout else { return shape }
    return [shape[0], (shape[1] + block - 1) / block, shape[2], shape[3], block]
  }

  /// A tensor like this one with undefined content.
  func uninitializedLike() throws -> Tensor {
    try Tensor(uninitialized: shape, dtype: dtype, layout: layout)
  }

  /// This tensor as an operand of a result of the given shape and layout, on the tape, and the
  /// memory shape under which its elements line up with the result's memory.
  func operand(of target: [Int], _ targetLayout: Layout) throws -> (Tensor, [Int]) {
    guard case .blocked = targetLayout else {
      return (try plain(), leftPadded(shape, to: target.count))
    }
    let padded = leftPadded(shape, to: 4)
    if padded[1] == target[1] {
      // A reshape would go through the plain layout, so only missing axes ask for one.
      let blocked = try (shape == padded ? self : reshaped(padded)).inLayout(targetLayout)
      return (blocked, blocked.memoryShape)
    }
    // One channel for all: memory (n, 1, h, w) repeated over channel blocks and lanes.
    return (try plain(), padded + [1])
  }
}

/// The layout of a result of two operands: blocked when one of them is and has the result's shape.
func resultLayout(_ a: Tensor, _ b: Tensor, _ shape: [Int]) -> Layout {
  let blocked = [a, b].first { $0.layout != .plain && $0.shape == shape }?.layout ?? .plain
  return blocked == .half ? .preferred : blocked
}
