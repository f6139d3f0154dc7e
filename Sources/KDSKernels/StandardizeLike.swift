/// Mean and deviation of a channel over images and places.
private struct ChannelMoments {
  let mean: Double
  let deviation: Double
}

extension Kernels {
  /// Channel by channel over (N, H, W): (x - mean_x) / (std_x + eps) · std_y + mean_y, deviations
  /// unbiased (0 for a single number). CrossKD's alignment of the student's tower to the teacher's.
  /// - Parameters:
  ///   - x, y, out: (images, channels, area), plain.
  ///   - moments: (channels, 3), written for `standardizeLikeBackward`: mean and deviation of x,
  ///     deviation of y.
  public static func standardizeLike(
    _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, images: Int, channels: Int, area: Int,
    eps: Float, out: UnsafeMutablePointer<Float>, moments: UnsafeMutablePointer<Double>
  ) {
    parallelFor(count: channels, grain: max(1, elementGrain / max(1, images * area))) { range in
      for channel in range {
        let own = channelMoments(x, channel, images, channels, area)
        let like = channelMoments(y, channel, images, channels, area)
        let factor = Float(like.deviation / (own.deviation + Double(eps)))
        let (mean, shift) = (Float(own.mean), Float(like.mean))
        for image in 0..<images {
          let start = (image * channels + channel) * area
          for i in start..<(start + area) { out[i] = (x[i] - mean) * factor + shift }
        }
        moments[3 * channel] = own.mean
        moments[3 * channel + 1] = own.deviation
        moments[3 * channel + 2] = like.deviation
      }
    }
  }

  /// Gradient to x, through its mean and deviation: with k = std_y / (std_x + eps) and n numbers
  /// k (g - mean g) - k (x - mean_x) sum g (x - mean_x) / ((n - 1) std_x (std_x + eps)).
  public static func standardizeLikeBackward(
    _ x: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>, moments: UnsafePointer<Double>,
    images: Int, channels: Int, area: Int, eps: Float, gradInput: UnsafeMutablePointer<Float>
  ) {
    parallelFor(count: channels, grain: max(1, elementGrain / max(1, images * area))) { range in
      for channel in range {
        let (mean, deviation) = (Float(moments[3 * channel]), moments[3 * channel + 1])
        let padded = deviation + Double(eps)
        let factor = moments[3 * channel + 2] / padded
        var (plain, product) = (0.0, 0.0)
        for image in 0..<images {
          let start = (image * channels + channel) * area
          plain += sumTerms(start..<(start + area)) { gradOutput[$0] }
          product += sumTerms(start..<(start + area)) { gradOutput[$0] * (x[$0] - mean) }
        }
        let count = Double(images * area)
        // A channel without spread passes no gradient through its deviation.
        let bend = deviation > 0 ? factor * product / ((count - 1) * deviation * padded) : 0
        let (k, level, slope) = (Float(factor), Float(plain / count), Float(bend))
        for image in 0..<images {
          let start = (image * channels + channel) * area
          for i in start..<(start + area) {
            gradInput[i] = k * (gradOutput[i] - level) - slope * (x[i] - mean)
          }
        }
      }
    }
  }

  private static func channelMoments(
    _ x: UnsafePointer<Float>, _ channel: Int, _ images: Int, _ channels: Int, _ area: Int
  ) -> ChannelMoments {
    let count = images * area
    if count == 0 { return ChannelMoments(mean: 0, deviation: 0) }
    var total = 0.0
    for image in 0..<images {
      let start = (image * channels + channel) * area
      total += sumTerms(start..<(start + area)) { x[$0] }
    }
    let mean = total / Double(count)
    let centre = Float(mean)
    var (squares, rest) = (0.0, 0.0)
    for image in 0..<images {
      let start = (image * channels + channel) * area
      squares += sumTerms(start..<(start + area)) { (x[$0] - centre) * (x[$0] - centre) }
      rest += sumTerms(start..<(start + area)) { x[$0] - centre }
    }
    if count == 1 { return ChannelMoments(mean: mean, deviation: 0) }
    // The centre is a rounded mean; the second sum takes its error out.
    let variance = (squares - rest * rest / Double(count)) / Double(count - 1)
    return ChannelMoments(mean: mean, deviation: variance > 0 ? variance.squareRoot() : 0)
  }
}
