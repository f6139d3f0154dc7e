import KDSKernels
import KDSTensor

/// One operation under test. A new operation is a few lines: shapes, how to call it and, where the
/// definition is short, a naive reference.
///
/// `failures()` runs it four ways: value against the reference, gradient against central differences,
/// blocked against plain inputs, one thread against two.
public struct OpCase: CustomStringConvertible, @unchecked Sendable {
  public var name: String
  /// Shapes of the float inputs.
  public var shapes: [[Int]]
  /// Shapes for the comparison of thread counts, large enough that the work is really split.
  public var large: [[Int]]?
  public var seed: UInt64 = 1
  /// Range of the random inputs.
  public var range: ClosedRange<Float> = -2...2
  public var build: ([Tensor]) throws -> Tensor
  /// Expected values, row-major, from the values of the inputs.
  public var reference: (([[Float]]) -> [Float])?
  /// Largest |value - reference| / max(1, |reference|). A few roundings of 6e-8 each.
  public var tolerance: Float = 1e-5
  /// Which inputs have a gradient; nil: all of them.
  public var gradients: [Int]?
  /// Step of the central difference. Truncation is step² f''' / 6, rounding about 1e-7 |f| / step:
  /// at 1e-2 both stay near 2e-5 for functions of order 1.
  public var step: Float = 1e-2
  public var gradientTolerance: Float = 1e-3
  /// True where an element of an input is too close to a kink for differences.
  public var skip: (Int, Float) -> Bool = { _, _ in false }
  /// Which rank-4 inputs come in blocked layouts; nil: all of them. Weights stay plain.
  public var blocked: [Int]?

  public var description: String { "\(name)\(shapes)" }

  public init(
    _ name: String, _ shapes: [[Int]], large: [[Int]]? = nil, range: ClosedRange<Float> = -2...2,
    seed: UInt64 = 1, reference: (([[Float]]) -> [Float])? = nil, tolerance: Float = 1e-5,
    gradients: [Int]? = nil, step: Float = 1e-2, gradientTolerance: Float = 1e-3,
    skip: @escaping (Int, Float) -> Bool = { _, _ in false }, blocked: [Int]? = nil,
    build: @escaping ([Tensor]) throws -> Tensor
  ) {
    self.name = name
    self.shapes = shapes
    self.large = large
    self.range = range
    self.seed = seed
    self.reference = reference
    self.tolerance = tolerance
    self.gradients = gradients
    self.step = step
    self.gradientTolerance = gradientTolerance
    self.skip = skip
    self.blocked = blocked
    self.build = build
  }

  /// What is wrong with the operation; empty when nothing is.
  public func failures() throws -> [String] {
    try checkReference() + checkGradients() + checkLayouts() + checkThreads()
  }

  // MARK: - The four ways

  private func checkReference() throws -> [String] {
    guard let reference else { return [] }
    let inputs = values(shapes)
    let found = try build(tensors(inputs, shapes)).values()
    let wanted = reference(inputs)
    guard found.count == wanted.count else {
      return ["reference: \(found.count) values instead of \(wanted.count)"]
    }
    return worst(found, wanted, tolerance).map { ["reference: \($0)"] } ?? []
  }

  private func checkGradients() throws -> [String] {
    let wanted = gradients ?? Array(shapes.indices)
    if wanted.isEmpty { return [] }
    let inputs = values(shapes)
    let analytic = try run(inputs, shapes, .plain).gradients
    var problems: [String] = []
    for input in wanted {
      for place in samples(inputs[input].count) where !skip(input, inputs[input][place]) {
        let numeric = try difference(inputs, input, place)
        let found = analytic[input][place]
        let gap = abs(Double(found) - numeric) / max(1, abs(numeric))
        if !(gap <= Double(gradientTolerance)) {
          problems.append(
            "gradient of input \(input) at \(place): \(found), differences give \(numeric)")
        }
      }
    }
    return Array(problems.prefix(3))
  }

  private func checkLayouts() throws -> [String] {
    let candidates = blocked ?? Array(shapes.indices)
    guard candidates.contains(where: { shapes[$0].count == 4 }) else { return [] }
    let inputs = values(shapes)
    let plain = try run(inputs, shapes, .plain)
    var problems: [String] = []
    for block in [8, 16] {
      let other = try run(inputs, shapes, .blocked(block))
      // Only the order of additions may differ.
      let limit = max(tolerance, 1e-5)
      if let gap = worst(other.output, plain.output, limit) {
        problems.append("nChw\(block)c against plain: \(gap)")
      }
      for index in shapes.indices {
        if let gap = worst(other.gradients[index], plain.gradients[index], limit) {
          problems.append("nChw\(block)c against plain, gradient \(index): \(gap)")
        }
      }
      problems += other.problems
    }
    return problems
  }

  private func checkThreads() throws -> [String] {
    let before = Threads.count
    defer { Threads.count = before }
    let shapes = large ?? shapes
    let inputs = values(shapes)
    Threads.count = 1
    let single = try run(inputs, shapes, .plain)
    Threads.count = 2
    let double = try run(inputs, shapes, .plain)
    var problems: [String] = []
    if !sameBits(single.output, double.output) { problems.append("two threads change the result") }
    for index in shapes.indices
    where !sameBits(single.gradients[index], double.gradients[index]) {
      problems.append("two threads change gradient \(index)")
    }
    return problems
  }

  // MARK: - Parts

  private struct Outcome {
    var output: [Float]
    var gradients: [[Float]]
    var problems: [String]
  }

  /// Forward and backward with the seed gradient `weights`.
  private func run(_ inputs: [[Float]], _ shapes: [[Int]], _ layout: Layout) throws -> Outcome {
    let leaves = try tensors(inputs, shapes).enumerated().map { index, leaf in
      leaf.rank == 4 && (blocked?.contains(index) ?? true) ? try leaf.inLayout(layout) : leaf
    }
    let wanted = gradients ?? Array(shapes.indices)
    for index in wanted { leaves[index].requiresGrad = true }
    let output = try build(leaves)
    var problems = paddingProblem(output, "result")
    if !wanted.isEmpty {
      try Tape.backward(from: output, seed: Tensor(weights(output.count), shape: output.shape))
    }
    let found = try leaves.map { leaf -> [Float] in
      guard let gradient = leaf.gradient else { return [] }
      problems += paddingProblem(gradient, "gradient")
      return try gradient.values()
    }
    for index in wanted where found[index].isEmpty && !inputs[index].isEmpty {
      problems.append("input \(index) got no gradient")
    }
    return Outcome(output: try output.values(), gradients: found, problems: problems)
  }

  /// Central difference of sum(weights * output) along one element, in double precision.
  private func difference(_ inputs: [[Float]], _ input: Int, _ place: Int) throws -> Double {
    func loss(_ change: Float) throws -> (Double, Float) {
      var moved = inputs
      moved[input][place] += change
      let output = try build(tensors(moved, shapes)).values()
      let total = zip(output, weights(output.count)).reduce(0.0) {
        $0 + Double($1.0) * Double($1.1)
      }
      return (total, moved[input][place])
    }
    let (above, up) = try loss(step)
    let (below, down) = try loss(-step)
    return (above - below) / (Double(up) - Double(down))
  }

  private func values(_ shapes: [[Int]]) -> [[Float]] {
    shapes.enumerated().map { index, shape in
      var random = CounterRandom(seed: seed, stream: UInt64(index))
      return (0..<shape.reduce(1, *)).map { _ in
        random.uniform(range.lowerBound, range.upperBound)
      }
    }
  }

  private func tensors(_ inputs: [[Float]], _ shapes: [[Int]]) throws -> [Tensor] {
    try zip(inputs, shapes).map { try Tensor($0, shape: $1) }
  }

  private func weights(_ count: Int) -> [Float] {
    var random = CounterRandom(seed: seed, stream: 1000)
    return (0..<count).map { _ in random.uniform(-1, 1) }
  }

  /// Up to 16 places, spread by chance.
  private func samples(_ count: Int) -> [Int] {
    var random = CounterRandom(seed: seed, stream: 2000)
    return random.sample(16, outOf: count)
  }
}

/// The largest relative gap above `limit`, as text; NaN matches NaN only.
private func worst(_ found: [Float], _ wanted: [Float], _ limit: Float) -> String? {
  guard found.count == wanted.count else { return "\(found.count) values, not \(wanted.count)" }
  var (gap, place): (Float, Int) = (0, 0)
  for index in found.indices {
    let (x, y) = (found[index], wanted[index])
    if x == y || (x.isNaN && y.isNaN) { continue }
    let distance = abs(x - y) / max(1, abs(y))
    if !(distance <= gap) { (gap, place) = (distance, index) }
  }
  if gap <= limit { return nil }
  return "\(found[place]) instead of \(wanted[place]) at \(place), gap \(gap)"
}

private func sameBits(_ a: [Float], _ b: [Float]) -> Bool {
  a.map(\.bitPattern) == b.map(\.bitPattern)
}

/// Channel padding of a blocked tensor must be zero, or the next operation reads rubbish.
private func paddingProblem(_ tensor: Tensor, _ what: String) -> [String] {
  guard case .blocked(let block) = tensor.layout else { return [] }
  let (channels, area) = (tensor.shape[1], tensor.shape[2] * tensor.shape[3])
  let blocks = (channels + block - 1) / block
  for index in 0..<tensor.storedCount {
    let channel = index / (area * block) % blocks * block + index % block
    if channel >= channels && tensor.floats[index] != 0 {
      return ["\(what): channel padding is \(tensor.floats[index]) at \(index)"]
    }
  }
  return []
}
