import KDSNN
import KDSTensor

/// A convolution in the Tucker-2 form: `first` 1×1 (S → R3), `core` (R3 → R4, with the original kernel,
/// stride, padding and groups), `last` 1×1 (R4 → T, with bias and activation). Tucker-1 has no `first`.
public final class TuckerConv2d: Module, ActivatedLayer {
  public let shape: KernelShape
  public let ranks: TuckerRanks

  /// Room for the weights, all zeros: what a model gets before its weights are loaded.
  ///
  /// - Parameter options: those of the convolution that it replaces.
  public init(
    _ shape: KernelShape, _ ranks: TuckerRanks, bias: Bool, options: ConvolutionOptions
  ) throws {
    self.shape = shape
    self.ranks = ranks
    super.init()
    let groups = shape.groups
    let between = ranks.input ?? shape.inputs
    var pointwise = ConvolutionOptions(groups: groups)
    if let rank = ranks.input {
      child(
        "first",
        Conv2d(
          weight: try Tensor.zeros([groups * rank, shape.inputs, 1, 1]), bias: nil,
          options: pointwise))
    }
    var inner = options
    inner.groups = groups
    inner.activation = .none
    let kernel = shape.kernel
    child(
      "core",
      Conv2d(
        weight: try Tensor.zeros([groups * ranks.output, between, kernel.height, kernel.width]),
        bias: nil, options: inner))
    pointwise.activation = options.activation
    child(
      "last",
      Conv2d(
        weight: try Tensor.zeros([groups * shape.outputs, ranks.output, 1, 1]),
        bias: bias ? try Tensor.zeros([groups * shape.outputs]) : nil, options: pointwise))
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    try layer("last")(inner(input))
  }

  public func beforeActivation(_ input: Tensor) throws -> Tensor {
    try layer("last").beforeActivation(inner(input))
  }

  private func inner(_ input: Tensor) throws -> Tensor {
    try layer("core")(ranks.input == nil ? input : layer("first")(input))
  }

  /// Copies the factors of one group into the weights.
  package func fill(_ factors: TuckerFactors, group: Int) {
    if let input = factors.input { write(input, "first", group) }
    write(factors.core, "core", group)
    write(factors.output.transposed(), "last", group)
  }

  private func write(_ matrix: Matrix, _ name: String, _ group: Int) {
    guard let weight = (childModule(name) as? Conv2d)?.weight else { return }
    copy(matrix, to: weight, at: group * matrix.values.count)
  }

  public override var summary: String {
    let first = ranks.input.map { " -> \($0)" } ?? ""
    return "TuckerConv2d(\(shape.inputs)\(first) -> \(ranks.output) -> \(shape.outputs), "
      + "\(shape.kernel), groups \(shape.groups))"
  }
}

/// A linear layer as two: `first` (in → R) without bias, `last` (R → out).
public final class SVDLinear: Module, UnaryLayer {
  public let rank: Int

  /// Room for the weights, all zeros.
  public init(
    inputs: Int, outputs: Int, rank: Int, bias: Bool, activation: Activation
  ) throws {
    self.rank = rank
    super.init()
    child("first", Linear(weight: try Tensor.zeros([rank, inputs]), bias: nil))
    child(
      "last",
      Linear(
        weight: try Tensor.zeros([outputs, rank]), bias: bias ? try Tensor.zeros([outputs]) : nil,
        activation: activation))
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    try layer("last")(layer("first")(input))
  }

  func fill(_ factors: TuckerFactors) {
    guard let first = (childModule("first") as? Linear)?.weight,
      let last = (childModule("last") as? Linear)?.weight
    else { return }
    copy(factors.core, to: first, at: 0)
    copy(factors.output.transposed(), to: last, at: 0)
  }

  public override var summary: String { "SVDLinear(rank \(rank))" }
}

/// A linear layer on a flattened map, factorized as the convolution that it is: `conv` over the whole map.
public final class TuckerLinear: Module, UnaryLayer {
  public let map: Size2
  private let inputs: Int

  /// - Parameter shape: channels of the map, outputs, and the map as the kernel.
  public init(
    _ shape: KernelShape, _ ranks: TuckerRanks, bias: Bool, activation: Activation
  ) throws {
    map = shape.kernel
    inputs = shape.inputs
    super.init()
    child(
      "conv",
      try TuckerConv2d(
        shape, ranks, bias: bias, options: ConvolutionOptions(activation: activation)))
  }

  /// (N, C · height · width) to (N, out). N may be 0.
  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    guard input.rank == 2, input.shape[1] == inputs * map.height * map.width else {
      throw KDSError.shape(
        "linear: input \(input.shape) must be (N, \(inputs * map.height * map.width))")
    }
    let outputs = (childModule("conv") as? TuckerConv2d)?.shape.outputs ?? 0
    if input.shape[0] == 0 { return try Tensor.zeros([0, outputs]) }
    let result = try layer("conv")(input.reshaped([-1, inputs, map.height, map.width]))
    return try result.reshaped([input.shape[0], -1])
  }

  public override var summary: String { "TuckerLinear(\(map))" }
}

private func copy(_ matrix: Matrix, to weight: Tensor, at offset: Int) {
  let target = weight.floats + offset
  for (index, value) in matrix.values.enumerated() { target[index] = Float(value) }
  weight.markChanged()
}
