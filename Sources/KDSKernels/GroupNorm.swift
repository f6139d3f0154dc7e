/// Sizes of group normalisation: (images, channels, area) in `groups` equal groups of channels.
public struct GroupNormGeometry {
  public let images, channels, area, groups: Int

  public init(images: Int, channels: Int, area: Int, groups: Int) {
    self.images = images
    self.channels = channels
    self.area = area
    self.groups = groups
  }

  var width: Int { channels / groups }
  var count: Int { width * area }
}

extension Kernels {
  /// Group normalisation of plain NCHW (Wu and He, 2018; `torch.nn.GroupNorm`).
  /// - Parameters:
  ///   - weight, bias: (channels) or nil.
  ///   - means, inverses: (images, groups); mean and 1 / sqrt(variance + eps).
  public static func groupNormForward(
    _ input: UnsafePointer<Float>, _ shape: GroupNormGeometry, weight: UnsafePointer<Float>?,
    bias: UnsafePointer<Float>?, eps: Float, output: UnsafeMutablePointer<Float>,
    means: UnsafeMutablePointer<Float>, inverses: UnsafeMutablePointer<Float>
  ) {
    let (count, area, width) = (shape.count, shape.area, shape.width)
    if count <= 0 { return }
    parallelFor(count: shape.images * shape.groups, grain: rowGrain(count)) { range in
      for item in range {
        let x = input + item * count
        let y = output + item * count
        let (mean, inverse) = moments(x, count, eps: eps)
        means[item] = mean
        inverses[item] = inverse
        for k in 0..<width {
          let channel = item % shape.groups * width + k
          let scale = (weight?[channel] ?? 1) * inverse
          let shift = bias?[channel] ?? 0
          let (source, target) = (x + k * area, y + k * area)
          for i in 0..<area { target[i] = (source[i] - mean) * scale + shift }
        }
      }
    }
  }

  /// Gradients of `groupNormForward`; all outputs are overwritten.
  /// - Parameter gradWeight, gradBias: (channels) or nil.
  public static func groupNormBackward(
    input: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>, _ shape: GroupNormGeometry,
    weight: UnsafePointer<Float>?, means: UnsafePointer<Float>, inverses: UnsafePointer<Float>,
    gradInput: UnsafeMutablePointer<Float>, gradWeight: UnsafeMutablePointer<Float>?,
    gradBias: UnsafeMutablePointer<Float>?
  ) {
    let (count, channels) = (shape.count, shape.channels)
    if count <= 0 { return }
    withScratch(2 * max(shape.images, 1) * channels) { partials in
      // An image's sums per channel are written once each; they are added over images in order.
      parallelFor(count: shape.images * shape.groups, grain: rowGrain(count)) { range in
        for item in range {
          let (image, group) = (item / shape.groups, item % shape.groups)
          let sums = partials + 2 * image * channels + group * shape.width
          groupNormItem(
            input + item * count, gradOutput + item * count, shape, group, weight, means[item],
            inverses[item], gradInput + item * count, sums, sums + channels)
        }
      }
      addPartials(partials, shape.images, channels, gradWeight, gradBias)
    }
  }

  /// One group of one image: gradInput = inverse * (h - mean(h) - n mean(h n)), h = g * weight.
  @inline(__always)
  private static func groupNormItem(
    _ x: UnsafePointer<Float>, _ g: UnsafePointer<Float>, _ shape: GroupNormGeometry,
    _ group: Int, _ weight: UnsafePointer<Float>?, _ mean: Float, _ inverse: Float,
    _ out: UnsafeMutablePointer<Float>, _ weightSums: UnsafeMutablePointer<Float>,
    _ biasSums: UnsafeMutablePointer<Float>
  ) {
    let (area, width) = (shape.area, shape.width)
    var total: Float = 0
    var projected: Float = 0
    for k in 0..<width {
      let (source, upstream, target) = (x + k * area, g + k * area, out + k * area)
      // `target` holds the normalised input until the sums are known.
      for i in 0..<area { target[i] = (source[i] - mean) * inverse }
      biasSums[k] = sum(upstream, area)
      weightSums[k] = dot(upstream, target, area)
      let factor = weight?[group * width + k] ?? 1
      total += factor * biasSums[k]
      projected += factor * weightSums[k]
    }
    let average = total / Float(shape.count)
    let projection = projected / Float(shape.count)
    for k in 0..<width {
      let (upstream, target) = (g + k * area, out + k * area)
      let factor = weight?[group * width + k] ?? 1
      for i in 0..<area {
        target[i] = inverse * (factor * upstream[i] - average - target[i] * projection)
      }
    }
  }
}
