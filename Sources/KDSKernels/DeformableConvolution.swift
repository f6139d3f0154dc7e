/// Sizes of a deformable convolution (Zhu et al. 2019); the kernels see the map as rows of channels.
public struct DeformableGeometry {
  public var images, channels, height, width, outHeight, outWidth: Int
  public var kernelHeight, kernelWidth, strideHeight, strideWidth: Int
  public var paddingTop, paddingLeft, dilationHeight, dilationWidth: Int
  /// Groups of the convolution, and groups of channels that share their offsets.
  public var groups, offsetGroups: Int

  public init(
    images: Int, channels: Int, height: Int, width: Int, outHeight: Int, outWidth: Int,
    kernel: (Int, Int), stride: (Int, Int), padding: (Int, Int), dilation: (Int, Int),
    groups: Int, offsetGroups: Int
  ) {
    (self.images, self.channels, self.height, self.width) = (images, channels, height, width)
    (self.outHeight, self.outWidth) = (outHeight, outWidth)
    (kernelHeight, kernelWidth) = kernel
    (strideHeight, strideWidth) = stride
    (paddingTop, paddingLeft) = padding
    (dilationHeight, dilationWidth) = dilation
    (self.groups, self.offsetGroups) = (groups, offsetGroups)
  }

  /// Places of the kernel.
  public var taps: Int { kernelHeight * kernelWidth }
  /// Places of one output map.
  public var positions: Int { outHeight * outWidth }
  /// Places of all output maps: the rows of the matrix of columns.
  public var rows: Int { images * positions }
  /// Samples of one row.
  public var samplesPerRow: Int { offsetGroups * taps }
  /// Floats of one row of columns, all groups together.
  public var columns: Int { taps * channels }

  /// Runs of channels with one group of the convolution and one group of offsets.
  fileprivate var segments: [DeformableSegment] {
    let (perGroup, perOffset) = (channels / groups, channels / offsetGroups)
    var result: [DeformableSegment] = []
    var first = 0
    while first < channels {
      let last = min((first / perGroup + 1) * perGroup, (first / perOffset + 1) * perOffset)
      result.append(
        DeformableSegment(
          group: first / perGroup, offsetGroup: first / perOffset, first: first,
          inGroup: first % perGroup, count: last - first))
      first = last
    }
    return result
  }
}

private struct DeformableSegment {
  let group, offsetGroup, first, inGroup, count: Int

  /// The part of the segment inside `channels`, nil when there is none.
  func clamped(to channels: Range<Int>) -> DeformableSegment? {
    let (lower, upper) = (max(first, channels.lowerBound), min(first + count, channels.upperBound))
    if lower >= upper { return nil }
    return DeformableSegment(
      group: group, offsetGroup: offsetGroup, first: lower, inGroup: inGroup + lower - first,
      count: upper - lower)
  }
}

/// Where one place of the kernel reads: four pixels and their shares.
public struct DeformableSample {
  /// Rows of the input (image, y, x) of the corners: up left, up right, down left, down right.
  var pixels = SIMD4<Int32>(repeating: 0)
  /// Bilinear shares; 0 for corners outside the image.
  var weights = SIMD4<Float>(repeating: 0)
  /// Derivatives of the shares by y and by x.
  var slopeY = SIMD4<Float>(repeating: 0)
  var slopeX = SIMD4<Float>(repeating: 0)
  var mask: Float = 0
  /// Whether any corner is inside.
  var isInside = false
}

extension Kernels {
  /// Reads the offsets (images, 2·offsetGroups·taps, outH, outW; y before x) and masks
  /// (images, offsetGroups·taps, outH, outW; nil: 1) of some rows.
  ///
  /// - Parameter samples: (rows, offsetGroups, taps).
  public static func deformableSamples(
    offset: UnsafePointer<Float>, mask: UnsafePointer<Float>?, _ shape: DeformableGeometry,
    rows: Range<Int>, _ samples: UnsafeMutablePointer<DeformableSample>
  ) {
    let (perRow, area, first) = (shape.samplesPerRow, shape.positions, rows.lowerBound)
    parallelFor(count: rows.count, grain: max(1, 4096 / max(1, perRow))) { range in
      for index in range {
        let (image, place) = ((first + index) / area, (first + index) % area)
        let top = place / shape.outWidth * shape.strideHeight - shape.paddingTop
        let left = place % shape.outWidth * shape.strideWidth - shape.paddingLeft
        for sample in 0..<perRow {
          let tap = sample % shape.taps
          let at = (image * perRow + sample) * area + place
          let shift = (image * perRow + sample) * 2 * area + place
          let y = Float(top + tap / shape.kernelWidth * shape.dilationHeight) + offset[shift]
          let x = Float(left + tap % shape.kernelWidth * shape.dilationWidth) + offset[shift + area]
          samples[index * perRow + sample] = deformableSample(
            y, x, mask: mask?[at] ?? 1, image: image, shape)
        }
      }
    }
  }

  private static func deformableSample(
    _ y: Float, _ x: Float, mask: Float, image: Int, _ shape: DeformableGeometry
  ) -> DeformableSample {
    var sample = DeformableSample()
    sample.mask = mask
    // NaN fails every comparison and reads nothing.
    guard y >= -1, y < Float(shape.height), x >= -1, x < Float(shape.width) else { return sample }
    let (low, left) = (Int(y.rounded(.down)), Int(x.rounded(.down)))
    let (dy, dx) = (y - Float(low), x - Float(left))
    sample.isInside = true
    let shares = SIMD4<Float>((1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx)
    let byY = SIMD4<Float>(dx - 1, -dx, 1 - dx, dx)
    let byX = SIMD4<Float>(dy - 1, 1 - dy, -dy, dy)
    for corner in 0..<4 {
      let (row, column) = (low + corner / 2, left + corner % 2)
      if row < 0 || row >= shape.height || column < 0 || column >= shape.width { continue }
      sample.pixels[corner] = Int32((image * shape.height + row) * shape.width + column)
      sample.weights[corner] = shares[corner]
      sample.slopeY[corner] = byY[corner]
      sample.slopeX[corner] = byX[corner]
    }
    return sample
  }

  /// The columns of some rows: bilinear values times masks.
  ///
  /// - Parameters:
  ///   - input: (images · height · width, channels).
  ///   - columns: (groups, count, taps, channels / groups).
  public static func deformableColumns(
    _ input: UnsafePointer<Float>, _ samples: UnsafePointer<DeformableSample>,
    _ shape: DeformableGeometry, count: Int, _ columns: UnsafeMutablePointer<Float>
  ) {
    let (segments, taps) = (shape.segments, shape.taps)
    let (channels, perGroup) = (shape.channels, shape.channels / shape.groups)
    parallelFor(count: count, grain: max(1, 16384 / max(1, shape.columns))) { range in
      for row in range {
        for segment in segments {
          let from = input + segment.first
          for tap in 0..<taps {
            let sample = samples[row * shape.samplesPerRow + segment.offsetGroup * taps + tap]
            let to =
              columns + ((segment.group * count + row) * taps + tap) * perGroup + segment.inGroup
            guard sample.isInside else {
              to.update(repeating: 0, count: segment.count)
              continue
            }
            let w = sample.weights * sample.mask
            let a = from + Int(sample.pixels[0]) * channels
            let b = from + Int(sample.pixels[1]) * channels
            let c = from + Int(sample.pixels[2]) * channels
            let d = from + Int(sample.pixels[3]) * channels
            let (wa, wb, wc, wd) = (w[0], w[1], w[2], w[3])
            for lane in 0..<segment.count {
              to[lane] = wa * a[lane] + wb * b[lane] + wc * c[lane] + wd * d[lane]
            }
          }
        }
      }
    }
  }

  /// Gradients of offsets and masks of some rows, written where `deformableSamples` read.
  ///
  /// - Parameter gradColumns: like the columns.
  public static func deformableSampleGradients(
    _ input: UnsafePointer<Float>, _ samples: UnsafePointer<DeformableSample>,
    gradColumns: UnsafePointer<Float>, _ shape: DeformableGeometry, rows: Range<Int>,
    gradOffset: UnsafeMutablePointer<Float>, gradMask: UnsafeMutablePointer<Float>?
  ) {
    let (segments, taps, area) = (shape.segments, shape.taps, shape.positions)
    let (perRow, perGroup, count) = (
      shape.samplesPerRow, shape.channels / shape.groups, rows.count
    )
    parallelFor(count: count, grain: max(1, 16384 / max(1, shape.columns))) { range in
      for row in range {
        let (image, place) = ((rows.lowerBound + row) / area, (rows.lowerBound + row) % area)
        for index in 0..<perRow {
          let sample = samples[row * perRow + index]
          var dots = SIMD4<Float>(repeating: 0)
          if sample.isInside {
            for segment in segments where segment.offsetGroup == index / taps {
              let gradient =
                gradColumns + ((segment.group * count + row) * taps + index % taps) * perGroup
                + segment.inGroup
              dots += cornerProducts(
                gradient, input + segment.first, sample.pixels, stride: shape.channels,
                segment.count)
            }
          }
          let at = (image * perRow + index) * area + place
          let shift = (image * perRow + index) * 2 * area + place
          gradOffset[shift] = sample.mask * (dots * sample.slopeY).sum()
          gradOffset[shift + area] = sample.mask * (dots * sample.slopeX).sum()
          gradMask?[at] = (dots * sample.weights).sum()
        }
      }
    }
  }

  /// Scalar products of a gradient with the channels of each of four pixels.
  @inline(__always)
  private static func cornerProducts(
    _ gradient: UnsafePointer<Float>, _ input: UnsafePointer<Float>, _ pixels: SIMD4<Int32>,
    stride: Int, _ count: Int
  ) -> SIMD4<Float> {
    var result = SIMD4<Float>(repeating: 0)
    for corner in 0..<4 {
      let values = input + Int(pixels[corner]) * stride
      var lanes = SIMD16<Float>(repeating: 0)
      var channel = 0
      while channel + 16 <= count {
        lanes += load16(gradient + channel) * load16(values + channel)
        channel += 16
      }
      var sum = lanes.sum()
      while channel < count {
        sum += gradient[channel] * values[channel]
        channel += 1
      }
      result[corner] = sum
    }
    return result
  }

  /// Adds the gradient of the input, in rows of channels, of some rows of columns.
  ///
  /// The threads share the channels, and each channel adds in the order of the rows: the sums do not
  /// depend on the number of threads.
  public static func deformableInputGradient(
    _ samples: UnsafePointer<DeformableSample>, gradColumns: UnsafePointer<Float>,
    _ shape: DeformableGeometry, count: Int, _ gradInput: UnsafeMutablePointer<Float>
  ) {
    let (segments, taps, channels) = (shape.segments, shape.taps, shape.channels)
    let perGroup = channels / shape.groups
    parallelFor(count: (channels + 15) / 16, grain: 1) { range in
      let own = range.lowerBound * 16..<min(range.upperBound * 16, channels)
      for segment in segments.compactMap({ $0.clamped(to: own) }) {
        for row in 0..<count {
          for tap in 0..<taps {
            let sample = samples[row * shape.samplesPerRow + segment.offsetGroup * taps + tap]
            if !sample.isInside { continue }
            let from =
              gradColumns + ((segment.group * count + row) * taps + tap) * perGroup
              + segment.inGroup
            for corner in 0..<4 where sample.weights[corner] != 0 {
              let weight = sample.weights[corner] * sample.mask
              let to = gradInput + Int(sample.pixels[corner]) * channels + segment.first
              for lane in 0..<segment.count { to[lane] += weight * from[lane] }
            }
          }
        }
      }
    }
  }
}
