/// Sizes of a map (images, channels, area) and its channel block (1 = plain).
public struct ChannelGeometry {
  public let images, channels, area, block: Int
  public var blocks: Int { (channels + block - 1) / block }

  public init(images: Int, channels: Int, area: Int, block: Int) {
    self.images = images
    self.channels = channels
    self.area = area
    self.block = block
  }
}

extension Kernels {
  /// out = a · scale[c] + shift[c], optionally max(·, 0). Padded channels become zero.
  public static func channelAffine(
    _ a: UnsafePointer<Float>, scale: UnsafePointer<Float>, shift: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ geometry: ChannelGeometry, relu: Bool
  ) {
    let (blocks, area, block) = (geometry.blocks, geometry.area, geometry.block)
    let floor: Float = relu ? 0 : -.infinity
    parallelFor(
      count: geometry.images * blocks, grain: max(1, elementwiseGrain / max(1, area * block))
    ) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * block) { scratch in
        let (factors, offsets) = (scratch.baseAddress!, scratch.baseAddress! + block)
        for index in range {
          let first = index % blocks * block
          for lane in 0..<block {
            let inside = first + lane < geometry.channels
            factors[lane] = inside ? scale[first + lane] : 0
            offsets[lane] = inside ? shift[first + lane] : 0
          }
          let (from, to) = (a + index * area * block, out + index * area * block)
          if block == 1 {
            let (factor, offset) = (factors[0], offsets[0])
            for pixel in 0..<area {
              let value = from[pixel] * factor + offset
              to[pixel] = value < floor ? floor : value
            }
          } else {
            for pixel in 0..<area {
              let (source, target) = (from + pixel * block, to + pixel * block)
              for lane in 0..<block {
                let value = source[lane] * factors[lane] + offsets[lane]
                target[lane] = value < floor ? floor : value
              }
            }
          }
        }
      }
    }
  }

  /// Per channel: plain[c] = Σ a, product[c] = Σ a · b, over images and pixels, in double precision.
  public static func channelSums(
    _ a: UnsafePointer<Float>, times b: UnsafePointer<Float>,
    plain: UnsafeMutablePointer<Float>, product: UnsafeMutablePointer<Float>,
    _ geometry: ChannelGeometry
  ) {
    let (blocks, area, block) = (geometry.blocks, geometry.area, geometry.block)
    parallelFor(count: geometry.channels, grain: 1) { range in
      for channel in range {
        var (total, mixed) = (0.0, 0.0)
        for image in 0..<geometry.images {
          let base = (image * blocks + channel / block) * area * block + channel % block
          for pixel in 0..<area {
            let value = a[base + pixel * block]
            total += Double(value)
            mixed += Double(value * b[base + pixel * block])
          }
        }
        plain[channel] = Float(total)
        product[channel] = Float(mixed)
      }
    }
  }
}

extension Kernels {
  /// (N, ceil(C/block), area, block) or, for block 1, (N, C, area), to (N, area, C).
  public static func channelsLast(
    _ a: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ geometry: ChannelGeometry
  ) {
    let (channels, area, block, blocks) = (
      geometry.channels, geometry.area, geometry.block, geometry.blocks
    )
    parallelFor(count: geometry.images, grain: 1) { range in
      for image in range {
        for group in 0..<blocks {
          let present = min(block, channels - group * block)
          let from = a + (image * blocks + group) * area * block
          let to = out + image * area * channels + group * block
          for pixel in 0..<area {
            for lane in 0..<present { to[pixel * channels + lane] = from[pixel * block + lane] }
          }
        }
      }
    }
  }

  /// The way back from (N, area, C); padded channels become zero.
  public static func channelsFirst(
    _ a: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ geometry: ChannelGeometry
  ) {
    let (channels, area, block, blocks) = (
      geometry.channels, geometry.area, geometry.block, geometry.blocks
    )
    parallelFor(count: geometry.images, grain: 1) { range in
      for image in range {
        for group in 0..<blocks {
          let present = min(block, channels - group * block)
          let from = a + image * area * channels + group * block
          let to = out + (image * blocks + group) * area * block
          for pixel in 0..<area {
            for lane in 0..<present { to[pixel * block + lane] = from[pixel * channels + lane] }
            for lane in present..<block { to[pixel * block + lane] = 0 }
          }
        }
      }
    }
  }
}
