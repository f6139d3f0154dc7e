import KDSKernels
import KDSNN
import KDSTensor

/// What all blocks of one network share.
final class SwinContext {
  /// Added to the variances of the normalizations.
  let epsilon: Float
  /// Draws the branches that a training step leaves out; nil keeps all.
  var seed: UInt64?

  init(epsilon: Float) { self.epsilon = epsilon }
}

extension Module {
  /// Runs the child of that name, made for (rows, inputs), over every token of (N, H, W, inputs).
  func apply(_ name: String, tokens: Tensor) throws -> Tensor {
    let shape = tokens.shape
    let rows = try layer(name)(tokens.reshaped([shape[0] * shape[1] * shape[2], shape[3]]))
    return try rows.reshaped([shape[0], shape[1], shape[2], rows.shape[1]])
  }

  /// Registers a linear layer with the initial weights of Swin: normal with deviation 0.02.
  func registerLinear(
    _ name: String, _ inputs: Int, _ outputs: Int, bias: Bool = true, _ initializer: Initializer
  ) throws {
    child(name, try Linear(inputs, outputs, bias: bias, deviation: 0.02, initializer))
  }
}

/// Attention inside windows with torchvision's names: `relative_position_bias_table`,
/// `relative_position_index`, `qkv`, `proj`.
final class ShiftedWindowAttention: Module, UnaryLayer {
  /// Tokens on a window's side.
  static let window = 7

  private let table: Tensor
  private let heads, shift: Int

  init(_ channels: Int, heads: Int, shifted: Bool, _ initializer: Initializer) throws {
    let window = Self.window
    (self.heads, shift) = (heads, shifted ? window / 2 : 0)
    table = try initializer.normal(
      [(2 * window - 1) * (2 * window - 1), heads], deviation: 0.02)
    super.init()
    parameter("relative_position_bias_table", table)
    buffer("relative_position_index", try Self.positions())
    try registerLinear("qkv", channels, 3 * channels, initializer)
    try registerLinear("proj", channels, channels, initializer)
  }

  /// The row of the table for every pair of tokens of a window; a constant that torchvision saves.
  private static func positions() throws -> Tensor {
    let geometry = WindowGeometry(
      images: 1, height: window, width: window, channels: 1, heads: 1, window: window, shift: 0)
    let tokens = 0..<geometry.tokens
    let rows = tokens.flatMap { query in
      tokens.map { Int64(geometry.relativePosition(query, $0)) }
    }
    return try Tensor(rows, shape: [rows.count])
  }

  /// (N, H, W, C) to the same shape.
  func callAsFunction(_ input: Tensor) throws -> Tensor {
    let shape = input.shape
    let geometry = WindowGeometry(
      images: shape[0], height: shape[1], width: shape[2], channels: shape[3], heads: heads,
      window: Self.window, shift: shift)
    // Tokens of padding are zeros before the projection, as torchvision's: what it gives to zeros.
    let padding =
      geometry.isPadded
      ? try layer("qkv")(Tensor.zeros([1, shape[3]])).reshaped([3 * shape[3]]) : nil
    let mixed = try apply("qkv", tokens: input).windowAttention(
      table: table, padding: padding, heads: heads, window: Self.window, shift: shift)
    FLOPCounter.reportProducts(self, geometry.products, input: input, output: mixed)
    return try apply("proj", tokens: mixed)
  }

  override var summary: String { "ShiftedWindowAttention(\(heads) heads, shift \(shift))" }
}

/// Two linear layers with a GELU between them: `0` and `3`, torchvision counting it and a dropout.
final class SwinMLP: Module, UnaryLayer {
  init(_ channels: Int, _ initializer: Initializer) throws {
    super.init()
    try registerLinear("0", channels, 4 * channels, initializer)
    try registerLinear("3", 4 * channels, channels, initializer)
  }

  /// (N, H, W, C) to the same shape.
  func callAsFunction(_ input: Tensor) throws -> Tensor {
    try apply("3", tokens: apply("0", tokens: input).gelu())
  }
}

/// x + attn(norm1(x)), then x + mlp(norm2(x)) (Liu et al. 2021, eq. 3).
///
/// In training each branch of each image is left out with the probability `drop`, and those kept are
/// divided by 1 − drop (Huang et al. 2016, stochastic depth).
final class SwinBlock: Module, UnaryLayer {
  private let context: SwinContext
  /// Place among all blocks of the network.
  private let index: Int
  private let drop: Float

  init(
    _ channels: Int, heads: Int, shifted: Bool, index: Int, drop: Float, _ context: SwinContext,
    _ initializer: Initializer
  ) throws {
    (self.context, self.index, self.drop) = (context, index, drop)
    super.init()
    child("norm1", try LayerNorm(channels, epsilon: context.epsilon))
    child(
      "attn",
      try ShiftedWindowAttention(channels, heads: heads, shifted: shifted, initializer))
    child("norm2", try LayerNorm(channels, epsilon: context.epsilon))
    child("mlp", try SwinMLP(channels, initializer))
  }

  /// (N, H, W, C) to the same shape.
  func callAsFunction(_ input: Tensor) throws -> Tensor {
    let mixed = try input.adding(kept(layer("attn")(layer("norm1")(input)), branch: 0))
    return try mixed.adding(kept(layer("mlp")(layer("norm2")(mixed)), branch: 1))
  }

  private func kept(_ branch: Tensor, branch number: Int) throws -> Tensor {
    guard isTraining, drop > 0, let seed = context.seed else { return branch }
    var random = CounterRandom(
      seed: seed, stream: RandomStream.dropPath(branch: 2 * index + number))
    let factors = try Tensor.zeros([branch.shape[0], 1, 1, 1])
    for image in 0..<branch.shape[0] where random.uniform() >= drop {
      factors.floats[image] = 1 / (1 - drop)
    }
    return try branch.multiplied(by: factors)
  }
}

/// Halves height and width and doubles the channels: four neighbours, normalized, then projected.
final class PatchMerging: Module, UnaryLayer {
  init(_ channels: Int, _ context: SwinContext, _ initializer: Initializer) throws {
    super.init()
    try registerLinear("reduction", 4 * channels, 2 * channels, bias: false, initializer)
    child("norm", try LayerNorm(4 * channels, epsilon: context.epsilon))
  }

  /// (N, H, W, C) to (N, ⌈H/2⌉, ⌈W/2⌉, 2C).
  func callAsFunction(_ input: Tensor) throws -> Tensor {
    try apply("reduction", tokens: layer("norm")(input.mergedPatches()))
  }
}
