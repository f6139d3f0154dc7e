import COpenMP
import KDSKernels

/// One recorded operation: what it read and how gradients flow back through it.
final class Node {
  /// Grows with time, so that descending order is a valid order of the backward pass.
  let sequence: UInt64
  let name: String
  fileprivate(set) var inputs: [Tensor]
  /// Output gradient (in the output's layout) to input gradients, nil where none is wanted.
  fileprivate var backward: ((Tensor) throws -> [Tensor?])?

  init(
    sequence: UInt64, name: String, inputs: [Tensor],
    backward: @escaping (Tensor) throws -> [Tensor?]
  ) {
    self.sequence = sequence
    self.name = name
    self.inputs = inputs
    self.backward = backward
  }

  /// Releases the chain behind this node with a loop: recursion would overflow the stack on long tapes.
  deinit {
    backward = nil
    var pending = inputs
    inputs = []
    while var tensor = pending.popLast() {
      guard isKnownUniquelyReferenced(&tensor), var node = tensor.node else { continue }
      tensor.node = nil
      guard isKnownUniquelyReferenced(&node) else { continue }
      node.backward = nil
      pending.append(contentsOf: node.inputs)
      node.inputs = []
    }
  }
}

/// The record of operations, and the walk back over it.
public enum Tape {
  nonisolated(unsafe) private static var counter: UInt64 = 0
  private static let lock = Lock()

  /// False inside `withoutGrad`.
  public static var isRecording: Bool { kds_no_grad_depth().pointee == 0 }

  /// Runs `body` without recording, on this thread.
  public static func withoutGrad<Result>(_ body: () throws -> Result) rethrows -> Result {
    kds_no_grad_depth().pointee += 1
    defer { kds_no_grad_depth().pointee -= 1 }
    return try body()
  }

  /// Enters (+1) or leaves (-1) the state of `withoutGrad`, for callers that cannot nest a closure.
  public static func changeNoGradDepth(by change: Int32) {
    kds_no_grad_depth().pointee = max(0, kds_no_grad_depth().pointee + change)
  }

  /// Whether an operation on these inputs must save what its backward pass needs.
  public static func tracks(_ inputs: [Tensor?]) -> Bool {
    isRecording && inputs.contains { $0?.isTracked ?? false }
  }

  /// Puts `output` on the tape, if any input is tracked and recording is on.
  ///
  /// `backward` gets the gradient of the output, in the output's layout, and returns one gradient per
  /// input (nil for none). It must not change the tensor that it gets: several readers may share it.
  @discardableResult
  public static func record(
    _ output: Tensor, _ name: String, _ inputs: [Tensor],
    _ backward: @escaping (Tensor) throws -> [Tensor?]
  ) -> Tensor {
    guard tracks(inputs) else { return output }
    let sequence: UInt64 = lock.withLock {
      counter += 1
      return counter
    }
    output.node = Node(sequence: sequence, name: name, inputs: inputs, backward: backward)
    return output
  }

  /// Accumulates gradients of `root` into the leaves that require them, and frees the tape behind it.
  ///
  /// `seed` is the gradient of the root itself; without one the root must hold a single element.
  public static func backward(from root: Tensor, seed: Tensor? = nil) throws {
    if seed == nil && root.count != 1 {
      throw KDSError.shape("backward: the tensor must be a scalar, not of shape \(root.shape)")
    }
    guard root.isTracked else {
      throw KDSError.argument(
        "backward: the tensor is not on the tape (nothing it came from requires a gradient)")
    }
    try withoutGrad {
      let first = try seed ?? Tensor(filled: 1, shape: root.shape, layout: root.layout)
      var walk = BackwardWalk()
      try walk.deliver(first, to: root)
      while let next = walk.popLatest() { try walk.step(next) }
    }
  }

  fileprivate static func run(_ node: Node, _ gradient: Tensor) throws -> [Tensor?] {
    guard let backward = node.backward else {
      throw KDSError.runtime(
        "backward: the tape of \"\(node.name)\" was already used; run the forward pass again")
    }
    return try backward(gradient)
  }

  fileprivate static func release(_ node: Node) -> [Tensor] {
    node.backward = nil
    let inputs = node.inputs
    node.inputs = []
    return inputs
  }
}

/// State of one backward pass: gradients waiting at tensors, latest operation first.
private struct BackwardWalk {
  private var waiting: [UInt64: (tensor: Tensor, node: Node, gradient: Tensor)] = [:]
  private var heap: [UInt64] = []

  mutating func deliver(_ gradient: Tensor, to tensor: Tensor) throws {
    guard gradient.shape == tensor.shape else {
      throw KDSError.runtime(
        "backward: gradient of shape \(gradient.shape) for a tensor of shape \(tensor.shape)")
    }
    let fitted = try gradient.inLayout(tensor.layout)
    guard let node = tensor.node else {
      if tensor.requiresGrad {
        tensor.gradient = try tensor.gradient.map { try addSame($0, fitted) } ?? fitted
      }
      return
    }
    if let earlier = waiting[node.sequence] {
      waiting[node.sequence] = (tensor, node, try addSame(earlier.gradient, fitted))
    } else {
      waiting[node.sequence] = (tensor, node, fitted)
      push(node.sequence)
    }
  }

  mutating func popLatest() -> (tensor: Tensor, node: Node, gradient: Tensor)? {
    guard let sequence = pop() else { return nil }
    return waiting.removeValue(forKey: sequence)
  }

  mutating func step(_ item: (tensor: Tensor, node: Node, gradient: Tensor)) throws {
    if item.tensor.requiresGrad { item.tensor.gradient = item.gradient }
    let gradients = try Tape.run(item.node, item.gradient)
    let inputs = Tape.release(item.node)
    for (input, gradient) in zip(inputs, gradients) {
      if let gradient, input.isTracked { try deliver(gradient, to: input) }
    }
  }

  // A binary max-heap of sequence numbers.
  private mutating func push(_ value: UInt64) {
    heap.append(value)
    var child = heap.count - 1
    while child > 0, heap[(child - 1) / 2] < heap[child] {
      heap.swapAt((child - 1) / 2, child)
      child = (child - 1) / 2
    }
  }

  private mutating func pop() -> UInt64? {
    guard let top = heap.first else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      var parent = 0
      while true {
        var largest = parent
        for child in [2 * parent + 1, 2 * parent + 2]
        where child < heap.count && heap[child] > heap[largest] { largest = child }
        if largest == parent { break }
        heap.swapAt(parent, largest)
        parent = largest
      }
    }
    return top
  }
}

/// Sum of two tensors of one shape and layout, element by element in memory order.
func addSame(_ a: Tensor, _ b: Tensor) throws -> Tensor {
  let other = try b.inLayout(a.layout)
  let sum = try Tensor(uninitialized: a.shape, layout: a.layout)
  if a.layout == .half {
    Kernels.addHalf(a.halves, other.halves, sum.halves, sum.count, relu: false)
    return sum
  }
  Kernels.add(a.floats, other.floats, sum.floats, sum.storedCount)
  return sum
}
