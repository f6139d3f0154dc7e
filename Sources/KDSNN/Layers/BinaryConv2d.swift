import KDSKernels
import KDSTensor

/// How a binary convolution is built and learns (Rastegari et al. 2016, "XNOR-Net").
public struct BinarySettings: Codable, Equatable {
  /// "paper" puts a batch normalization of its own in front of the signs (block order B-A-C-P: behind a
  /// ReLU all signs would be +1); "plain" takes signs of the input as it is.
  public var order = "paper"
  /// Multiplies by K, the window's mean of |I| (equation 11).
  public var scaling_factor_k = false
  /// "paper" or "official": the gradient of the weights, see `BinaryGradient`; official also centers and
  /// limits the weights before each step.
  public var rule = BinaryGradient.paper.rawValue

  public init() {}

  /// - Throws: `KDSError.argument` naming the field that cannot be.
  public func check() throws {
    guard ["paper", "plain"].contains(order) else {
      throw KDSError.argument("binarize: order \"\(order)\" is neither \"paper\" nor \"plain\"")
    }
    guard BinaryGradient(rawValue: rule) != nil else {
      throw KDSError.argument("binarize: rule \"\(rule)\" is neither \"paper\" nor \"official\"")
    }
  }
}

/// A convolution of signs with binary weights: `norm` (C), sign, sign(W) times α, bias, activation.
///
/// Parameters `weight` (K, C, kh, kw) and `bias` (K) are real-valued, learn and are saved; their signs are
/// made anew at every use. Off the tape bits are counted and the normalization is one comparison.
public final class BinaryConv2d: Module, UnaryLayer {
  public let weight: Tensor
  public let bias: Tensor?
  public let options: ConvolutionOptions
  public let settings: BinarySettings
  private let rule: BinaryGradient
  private let norm: BatchNorm2d?

  /// In the place of an ordinary convolution, with its weights; what was frozen stays frozen.
  ///
  /// - Throws: `KDSError.argument` for convolutions in groups.
  public init(_ conv: Conv2d, _ settings: BinarySettings) throws {
    try settings.check()
    guard conv.options.groups == 1 else {
      throw KDSError.argument(
        "binarize: a convolution in \(conv.options.groups) groups stays as it is")
    }
    let (training, learns) = (conv.isTraining, conv.weight.requiresGrad)
    (weight, bias, options, self.settings) = (conv.weight, conv.bias, conv.options, settings)
    rule = BinaryGradient(rawValue: settings.rule) ?? .paper
    norm = settings.order == "paper" ? try BatchNorm2d(channels: conv.weight.shape[1]) : nil
    super.init()
    parameter("weight", weight)
    if let bias { parameter("bias", bias) }
    if let norm { child("norm", norm) }
    setTraining(training)
    if !learns { setRequiresGrad(false) }
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    if isTraining, rule == .official, weight.requiresGrad, Tape.isRecording {
      try weight.centerFilters()
    }
    let output: Tensor
    if Tape.tracks([input, weight, bias, norm?.weight, norm?.bias]) {
      output = try (norm.map { try $0(input) } ?? input).binaryConv2d(
        weight, bias: bias, options, rule: rule, inputScale: settings.scaling_factor_k)
    } else {
      output = try counted(input, behind: nil, options)
    }
    report(input, output)
    return output
  }

  /// This layer and the normalization behind it in one pass, nil where that cannot be: on the tape, or with
  /// statistics of the batch.
  public func callAsFunction(_ input: Tensor, behind next: BatchNorm2d) throws -> Tensor? {
    let own = [input, weight, bias, norm?.weight, norm?.bias, next.weight, next.bias]
    guard !next.isTraining || next.frozen, options.activation == .none,
      next.weight.count == weight.shape[0], !Tape.tracks(own)
    else { return nil }
    var fused = options
    fused.activation = next.activation
    let output = try counted(input, behind: next.affine(), fused)
    report(input, output)
    return output
  }

  private func counted(
    _ input: Tensor, behind next: (scale: Tensor, shift: Tensor)?, _ options: ConvolutionOptions
  ) throws -> Tensor {
    let filters = try weight.packedSigns()
    guard let norm else {
      return try input.binaryConv2d(
        filters, bias: bias, options, inputScale: settings.scaling_factor_k, behind: next)
    }
    if settings.scaling_factor_k || norm.isTraining {
      return try norm(input).binaryConv2d(
        filters, bias: bias, options, inputScale: settings.scaling_factor_k, behind: next)
    }
    return try input.binaryConv2d(
      filters, bias: bias, options, affine: norm.affine(), behind: next)
  }

  /// A binary product counts as 1/64 of a multiply-add, and α as one (the paper's section 4.1).
  private func report(_ input: Tensor, _ output: Tensor) {
    let length = weight.count / max(1, weight.shape[0])
    FLOPCounter.reportProducts(
      self, output.count * (length + 64) / 64, input: input, output: output)
  }

  public override var summary: String {
    let s = weight.shape
    return "BinaryConv2d(\(s[1]), \(s[0]), \(s[2])x\(s[3]), stride \(options.stride)"
      + (settings.scaling_factor_k ? ", K)" : ")")
  }
}
