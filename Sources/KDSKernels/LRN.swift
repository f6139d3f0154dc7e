/// Constants of local response normalisation across channels.
public struct LRNRule {
  /// Channels in the window.
  public let size: Int
  public let alpha, beta, bias: Float

  public init(size: Int, alpha: Float = 1e-4, beta: Float = 0.75, bias: Float = 1) {
    self.size = size
    self.alpha = alpha
    self.beta = beta
    self.bias = bias
  }
}

/// Pixels handled at a time: the rows of one window stay in the first-level cache.
private let lrnTile = 256

extension Kernels {
  /// Local response normalisation across channels, plain NCHW (Krizhevsky et al., 2012, in the form
  /// of Caffe and `torch.nn.LocalResponseNorm`): y = x d^-beta with
  /// d = bias + alpha / size * sum of squares over the window, channels outside counting as 0.
  /// The window of channel c is c - size / 2 ... c + (size - 1) / 2.
  /// - Parameter denominators: (N, C, area) or nil; receives d, which the backward pass needs.
  public static func lrnForward(
    _ input: UnsafePointer<Float>, images: Int, channels: Int, area: Int, rule: LRNRule,
    output: UnsafeMutablePointer<Float>, denominators: UnsafeMutablePointer<Float>?
  ) {
    forEachTile(images, channels, area) { base, length in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: lrnTile) { scratch in
        for channel in 0..<channels {
          let offset = base + channel * area
          let d = denominators.map { $0 + offset } ?? scratch.baseAddress!
          let (first, last) = window(channel, before: rule.size / 2, rule.size, channels)
          for i in 0..<length { d[i] = 0 }
          for other in first...last {
            let x = input + base + other * area
            for i in 0..<length { d[i] += x[i] * x[i] }
          }
          let ratio = rule.alpha / Float(rule.size)
          for i in 0..<length { d[i] = rule.bias + ratio * d[i] }
          let (x, y) = (input + offset, output + offset)
          power(d, rule.beta, length) { i, factor in y[i] = x[i] * factor }
        }
      }
    }
  }

  /// Gradient of `lrnForward`:
  /// g_i d_i^-beta - 2 alpha beta / size x_i sum of g_j y_j / d_j over the windows that hold i.
  public static func lrnBackward(
    input: UnsafePointer<Float>, output: UnsafePointer<Float>,
    denominators: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>, images: Int,
    channels: Int, area: Int, rule: LRNRule, gradInput: UnsafeMutablePointer<Float>
  ) {
    let strength = 2 * rule.alpha * rule.beta / Float(rule.size)
    forEachTile(images, channels, area) { base, length in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: lrnTile) { scratch in
        let total = scratch.baseAddress!
        for channel in 0..<channels {
          // Channel i lies in the window of j exactly for j in the mirrored window of i.
          let (first, last) = window(channel, before: (rule.size - 1) / 2, rule.size, channels)
          for i in 0..<length { total[i] = 0 }
          for other in first...last {
            let at = base + other * area
            let (g, y, d) = (gradOutput + at, output + at, denominators + at)
            for i in 0..<length { total[i] += g[i] * y[i] / d[i] }
          }
          let offset = base + channel * area
          let (g, x, out) = (gradOutput + offset, input + offset, gradInput + offset)
          power(denominators + offset, rule.beta, length) { i, factor in
            out[i] = g[i] * factor - strength * x[i] * total[i]
          }
        }
      }
    }
  }

  /// Channels `channel - before` and the `size - 1` after it, cut to those that exist.
  private static func window(
    _ channel: Int, before: Int, _ size: Int, _ channels: Int
  ) -> (Int, Int) {
    (
      max(0, channel - before),
      min(channels - 1, max(channel - before + size - 1, channel - before))
    )
  }

  /// Calls `body(i, d[i]^-beta)`; 3/4, the usual exponent, needs no logarithm.
  @inline(__always)
  private static func power(
    _ d: UnsafePointer<Float>, _ beta: Float, _ count: Int, _ body: (Int, Float) -> Void
  ) {
    if beta == 0.75 {
      for i in 0..<count {
        let inverse = fastInverseRoot(d[i])
        // d^-1/2 * d^-1/4, and d^-1/4 = (d^-1/2)^1/2 = d^-1/2 * (d^-1/2)^-1/2.
        body(i, inverse * inverse * fastInverseRoot(inverse))
      }
    } else {
      for i in 0..<count { body(i, fastExp(-beta * fastLog(d[i]))) }
    }
  }

  /// Runs `body(offset of the tile in channel 0, pixels)` over tiles of all images.
  @inline(__always)
  private static func forEachTile(
    _ images: Int, _ channels: Int, _ area: Int, _ body: (Int, Int) -> Void
  ) {
    let tiles = (area + lrnTile - 1) / lrnTile
    parallelFor(count: images * tiles, grain: max(1, 64 / max(channels, 1))) { range in
      for item in range {
        let first = item % tiles * lrnTile
        body(item / tiles * channels * area + first, min(lrnTile, area - first))
      }
    }
  }
}
