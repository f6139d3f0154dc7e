import KDSKernels
import KDSTensor

/// Response normalization across channels, without parameters.
public final class LocalResponseNorm: Module, UnaryLayer {
  public let size: Int
  public let alpha, beta, k: Float

  public init(size: Int = 5, alpha: Float = 1e-4, beta: Float = 0.75, k: Float = 1) {
    self.size = size
    self.alpha = alpha
    self.beta = beta
    self.k = k
    super.init()
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    throw KDSError.runtime("local_response_norm: not available")
  }
}
