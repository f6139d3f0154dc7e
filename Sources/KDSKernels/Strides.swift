/// Sizes and strides of a loop nest, with neighbouring loops merged where memory allows it.
///
/// All operands walk the same index space; a stride of 0 repeats an element (broadcasting).
public struct LoopNest {
  /// Sizes, outermost first; never empty.
  public private(set) var sizes: [Int]
  /// One list of strides, in elements, per operand.
  public private(set) var strides: [[Int]]

  /// - Precondition: every list in `strides` is as long as `sizes`.
  public init(sizes: [Int], strides: [[Int]]) {
    self.sizes = []
    self.strides = strides.map { _ in [] }
    for axis in sizes.indices where sizes[axis] != 1 {
      append(sizes[axis], strides.map { $0[axis] })
    }
    if self.sizes.isEmpty { append(1, strides.map { _ in 1 }) }
  }

  /// Adds an inner loop, or widens the last one when each operand continues through it.
  private mutating func append(_ size: Int, _ steps: [Int]) {
    if let last = sizes.last, strides.indices.allSatisfy({ strides[$0].last == steps[$0] * size }) {
      sizes[sizes.count - 1] = last * size
      for operand in strides.indices { strides[operand][sizes.count - 1] = steps[operand] }
    } else {
      sizes.append(size)
      for operand in strides.indices { strides[operand].append(steps[operand]) }
    }
  }

  /// Length of the innermost loop.
  public var inner: Int { sizes[sizes.count - 1] }
  /// Number of runs of the innermost loop.
  public var rows: Int { sizes.dropLast().reduce(1, *) }

  /// Offset of row `row` in the memory of `operand`.
  func offset(_ operand: Int, row: Int) -> Int {
    var (rest, offset) = (row, 0)
    var axis = sizes.count - 2
    while axis >= 0 {
      offset += rest % sizes[axis] * strides[operand][axis]
      rest /= sizes[axis]
      axis -= 1
    }
    return offset
  }

  /// Row-major strides of a shape.
  public static func contiguous(_ shape: [Int]) -> [Int] {
    var strides = [Int](repeating: 1, count: shape.count)
    for axis in shape.indices.dropLast().reversed() {
      strides[axis] = strides[axis + 1] * shape[axis + 1]
    }
    return strides
  }

  /// Strides that repeat a contiguous array of `shape` over `target` (same rank): 0 where it has size 1.
  public static func broadcast(_ shape: [Int], to target: [Int]) -> [Int] {
    let strides = contiguous(shape)
    return shape.indices.map { shape[$0] == 1 && target[$0] != 1 ? 0 : strides[$0] }
  }
}
