import KDSKernels
import KDSTensor

/// A convolution and the normalization behind it, found by name among the children of their owner.
///
/// Where batch normalization uses its running statistics and neither part learns, they run as one
/// convolution: w' = w · scale, b' = b · scale + shift per output channel, with the activation fused.
/// The folded weights are kept until a weight or a statistic changes. A gradient to the input still flows.
public final class ConvNorm {
  public let convolution: String
  public let normalization: String?

  private let lock = Lock()
  private var sources: [Tensor] = []
  private var versions: [Int] = []
  private var folded: (filters: ScaledWeights, bias: Tensor)?

  /// - Parameter normalization: nil for a convolution alone (which then carries the activation itself).
  public init(_ convolution: String, _ normalization: String?) {
    self.convolution = convolution
    self.normalization = normalization
  }

  /// Runs both on `input` (N, C, H, W).
  ///
  /// - Parameter activated: false stops before the activation.
  public func callAsFunction(
    _ input: Tensor, in owner: Module, activated: Bool = true
  ) throws -> Tensor {
    let first = try owner.layer(convolution)
    guard let normalization else {
      return try activated ? first(input) : first.beforeActivation(input)
    }
    let second = try owner.layer(normalization)
    if activated, let binary = first.module as? BinaryConv2d,
      let norm = second.module as? BatchNorm2d,
      let output = try binary(input, behind: norm)
    {
      return output
    }
    guard let conv = first.module as? Conv2d, let norm = second.module as? BatchNorm2d,
      canFold(conv, norm)
    else {
      let value = try first(input)
      return try activated ? second(value) : second.beforeActivation(value)
    }
    let (filters, bias) = try foldedWeights(conv, norm)
    var options = conv.options
    options.activation = activated ? norm.activation : .none
    let output = try input.conv2d(filters, bias: bias, options)
    FLOPCounter.reportConvolution(conv, weight: conv.weight, input: input, output: output)
    return output
  }

  private func canFold(_ conv: Conv2d, _ norm: BatchNorm2d) -> Bool {
    (!norm.isTraining || norm.frozen) && conv.options.activation == .none
      && conv.weight.shape[0] == norm.weight.count
      && !Tape.tracks([conv.weight, conv.bias, norm.weight, norm.bias])
  }

  private func foldedWeights(
    _ conv: Conv2d, _ norm: BatchNorm2d
  ) throws -> (filters: ScaledWeights, bias: Tensor) {
    let now =
      [conv.weight, norm.weight, norm.bias, norm.runningMean, norm.runningVariance]
      + (conv.bias.map { [$0] } ?? [])
    return try lock.withLock {
      let same =
        now.count == sources.count && zip(now, sources).allSatisfy { $0 === $1 }
        && zip(now, versions).allSatisfy { $0.version == $1 }
      if same, let folded { return folded }
      let made = try Tape.withoutGrad { try Self.fold(conv, norm) }
      (sources, versions, folded) = (now, now.map(\.version), made)
      return made
    }
  }

  private static func fold(
    _ conv: Conv2d, _ norm: BatchNorm2d
  ) throws -> (filters: ScaledWeights, bias: Tensor) {
    let (scale, shift) = try norm.affine()
    if let bias = conv.bias {
      for index in 0..<shift.count {
        shift.floats[index] += bias.floats[index] * scale.floats[index]
      }
    }
    return (ScaledWeights(weight: conv.weight, scale: scale), shift)
  }
}

/// Convolution, normalization and activation in one part, with children `conv` and `bn`.
public final class ConvBNReLU: Module, UnaryLayer {
  private let pair = ConvNorm("conv", "bn")

  /// - Parameter conv: without an activation of its own; `norm` carries it.
  public init(conv: Conv2d, norm: any UnaryLayer) {
    super.init()
    child("conv", conv)
    child("bn", norm as Module)
  }

  /// From sizes: no bias, "same" padding unless told, He initialization.
  public convenience init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1, padding: Int? = nil,
    groups: Int = 1, activation: Activation = .relu, frozen: Bool = false,
    _ initializer: Initializer
  ) throws {
    self.init(
      conv: try Conv2d(
        inChannels, outChannels, kernel: kernel, stride: stride, padding: padding, groups: groups,
        bias: false, initializer),
      norm: try BatchNorm2d(channels: outChannels, frozen: frozen, activation: activation))
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor { try pair(input, in: self) }
}
