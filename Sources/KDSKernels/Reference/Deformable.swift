extension Reference {
  /// Modulated deformable convolution (Zhu et al. 2019): every place of the kernel reads the input
  /// bilinearly at its own offset, times its mask. Outside the image there are zeros.
  ///
  /// - Parameters:
  ///   - offset: (images, 2·offsetGroups·taps, outH, outW), y before x.
  ///   - mask: (images, offsetGroups·taps, outH, outW), or nil for ones.
  public static func deformConv2d(
    _ input: [Float], offset: [Float], _ weight: [Float], bias: [Float]? = nil,
    mask: [Float]? = nil, offsetGroups: Int = 1, _ s: ConvolutionShape
  ) -> [Float] {
    let (area, taps) = (s.outHeight * s.outWidth, s.kernelHeight * s.kernelWidth)
    let (perGroup, filters) = (s.inputs / s.groups, s.outputs / s.groups)
    var out = [Float](repeating: 0, count: s.outputCount)
    for index in out.indices {
      let (place, k, image) = (index % area, index / area % s.outputs, index / area / s.outputs)
      var sum = Double(bias?[k] ?? 0)
      for c in 0..<perGroup {
        let channel = k / filters * perGroup + c
        for tap in 0..<taps {
          let part = channel / (s.inputs / offsetGroups) * taps + tap
          let shift = (image * offsetGroups * taps + part) * 2 * area + place
          let at = (image * offsetGroups * taps + part) * area + place
          let row =
            place / s.outWidth * s.strideHeight - s.paddingHeight + tap / s.kernelWidth
            * s.dilationHeight
          let column =
            place % s.outWidth * s.strideWidth - s.paddingWidth + tap % s.kernelWidth
            * s.dilationWidth
          let plane = (image * s.inputs + channel) * s.height * s.width
          let value = bilinearOrZero(
            input, plane, s.height, s.width, Double(row) + Double(offset[shift]),
            Double(column) + Double(offset[shift + area]))
          sum += value * Double(mask?[at] ?? 1) * Double(weight[(k * perGroup + c) * taps + tap])
        }
      }
      out[index] = Float(sum)
    }
    return out
  }

  private static func bilinearOrZero(
    _ input: [Float], _ plane: Int, _ height: Int, _ width: Int, _ y: Double, _ x: Double
  ) -> Double {
    var value = 0.0
    for row in 0..<height {
      for column in 0..<width {
        let share = max(0, 1 - abs(y - Double(row))) * max(0, 1 - abs(x - Double(column)))
        if share > 0 { value += share * Double(input[plane + row * width + column]) }
      }
    }
    return value
  }
}
