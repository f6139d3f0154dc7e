import KDSKernels
import KDSTensor

/// Response normalization across channels (Krizhevsky et al. 2012), without parameters; as Caffe's layer
/// and `torch.nn.LocalResponseNorm`: y = x · (k + alpha / size · Σ x²)^-beta over a window of channels.
public final class LocalResponseNorm: Module, UnaryLayer {
  public let size: Int
  public let alpha, beta, k: Float

  /// - Parameter size: channels in the window.
  public init(size: Int = 5, alpha: Float = 1e-4, beta: Float = 0.75, k: Float = 1) {
    self.size = size
    self.alpha = alpha
    self.beta = beta
    self.k = k
    super.init()
  }

  /// (N, C, H, W) in any layout to the same shape, plain.
  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    guard input.rank == 4, input.dtype == .float32 else {
      throw KDSError.shape("local_response_norm: input must be (N, C, H, W), got \(input.shape)")
    }
    guard size > 0 else {
      throw KDSError.argument("local_response_norm: size \(size) must be positive")
    }
    let source = try input.plain()
    let rule = LRNRule(size: size, alpha: alpha, beta: beta, bias: k)
    let (images, channels, area) = (input.shape[0], input.shape[1], input.shape[2] * input.shape[3])
    let output = try Tensor(uninitialized: input.shape)
    let denominators = Tape.tracks([source]) ? try Tensor(uninitialized: input.shape) : nil
    Kernels.lrnForward(
      source.floats, images: images, channels: channels, area: area, rule: rule,
      output: output.floats, denominators: denominators?.floats)
    guard let denominators else { return output }
    // The closure must not hold the output itself, or neither would ever be freed.
    let view = Tensor(storage: output.storage, shape: output.shape)
    return Tape.record(output, "local_response_norm", [source]) { gradient in
      let toSource = try Tensor(uninitialized: source.shape)
      Kernels.lrnBackward(
        input: source.floats, output: view.floats, denominators: denominators.floats,
        gradOutput: gradient.floats, images: images, channels: channels, area: area, rule: rule,
        gradInput: toSource.floats)
      return [toSource]
    }
  }

  public override var summary: String { "LocalResponseNorm(\(size), \(alpha), \(beta), \(k))" }
}
