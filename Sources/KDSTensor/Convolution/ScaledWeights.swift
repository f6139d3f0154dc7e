import KDSKernels

/// Filters times a factor each, as a folded normalization needs them: w' = w · scale[k].
///
/// Only the copies in the layouts that primitives want are kept, never a plain one: a teacher would carry
/// its weights three times.
public final class ScaledWeights {
  public let weight: Tensor
  /// (K), one factor per filter.
  public let scale: Tensor
  let copies = PackedWeights()

  public init(weight: Tensor, scale: Tensor) {
    (self.weight, self.scale) = (weight, scale)
  }

  /// The products, plain.
  func plain() throws -> Tensor {
    let result = try Tensor(uninitialized: weight.shape)
    let filter = weight.count / max(1, weight.shape[0])
    let (from, factors, to) = (weight.floats, scale.floats, result.floats)
    parallelFor(count: weight.shape[0], grain: max(1, 1 << 16 / max(1, filter))) { range in
      for index in range {
        let factor = factors[index]
        for element in index * filter..<(index + 1) * filter {
          to[element] = from[element] * factor
        }
      }
    }
    return result
  }
}

/// Where a convolution takes its packed weights from.
enum Filters {
  case own(Tensor)
  case scaled(ScaledWeights)

  var weight: Tensor {
    switch self {
    case .own(let weight): return weight
    case .scaled(let scaled): return scaled.weight
    }
  }

  var copies: PackedWeights {
    switch self {
    case .own(let weight): return weight.packedWeights()
    case .scaled(let scaled): return scaled.copies
    }
  }

  func plain() throws -> Tensor {
    switch self {
    case .own(let weight): return weight
    case .scaled(let scaled): return try scaled.plain()
    }
  }
}

extension Tensor {
  /// `conv2d` with filters times factors; only the input gets a gradient.
  public func conv2d(
    _ filters: ScaledWeights, bias: Tensor, _ options: ConvolutionOptions
  ) throws -> Tensor {
    try conv2d(.scaled(filters), bias: bias, options)
  }
}
