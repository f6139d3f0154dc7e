import KDSKernels

extension Tensor {
  /// Squared error (a - b)². Reductions: "mean" and "paper" over all elements, "sum", "none".
  /// Gradients go to both tensors; an empty pair gives 0.
  public func squaredError(_ other: Tensor, reduction: Reduction = .mean) throws -> Tensor {
    try difference("mse", other, reduction) {
      Kernels.squaredDifference($0, $1, $2, scale: $3, gradient: $4)
    }
  }

  /// Absolute error |a - b|; gradient 0 where equal. Reductions as for `squaredError`.
  public func absoluteError(_ other: Tensor, reduction: Reduction = .mean) throws -> Tensor {
    try difference("l1", other, reduction) {
      Kernels.absoluteDifference($0, $1, $2, scale: $3, gradient: $4)
    }
  }

  /// Smooth L1 (Girshick, "Fast R-CNN"; `torch.nn.SmoothL1Loss`): with d = a - b, d² / (2 beta) where
  /// |d| < beta, |d| - beta / 2 elsewhere; beta 0 is L1. Reductions as for `squaredError`.
  public func smoothL1(
    _ other: Tensor, beta: Float = 1, reduction: Reduction = .mean
  ) throws -> Tensor {
    guard beta >= 0, beta.isFinite else {
      throw KDSError.argument("smooth_l1: beta must be a number of at least 0, not \(beta)")
    }
    return try difference("smooth_l1", other, reduction) {
      Kernels.smoothL1($0, $1, $2, beta: beta, scale: $3, gradient: $4)
    }
  }

  /// A loss of the difference of two tensors, on their memory as it lies: padding is equal on both
  /// sides and adds nothing.
  private func difference(
    _ name: String, _ other: Tensor, _ reduction: Reduction,
    _ kernel:
      @escaping (
        UnsafePointer<Float>, UnsafePointer<Float>, Int, Float, UnsafeMutablePointer<Float>?
      ) -> Double
  ) throws -> Tensor {
    let whole = try reduction == .none ? plain() : widened()
    let (a, b) = try lossPair(name, whole, other)
    let loss = FusedLoss(
      name: name, student: a, mirror: b.isTracked ? b : nil, rows: a.storedCount, columns: 1,
      shape: a.shape
    ) { range, scale, gradient in
      kernel(
        a.floats + range.lowerBound, b.floats + range.lowerBound, range.count, scale, gradient)
    }
    if reduction == .none || reduction == .sum { return try loss.reduced(reduction) }
    return try loss.reduced(factor: count > 0 ? 1 / Double(count) : 0)
  }
}
