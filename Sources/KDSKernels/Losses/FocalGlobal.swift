/// What multiplies and shifts the terms of `Kernels.focalGlobal`.
public struct FocalWeights {
  /// (images, area): weight of the squared difference.
  let pixels: UnsafePointer<Float>
  /// (images, channels): likewise.
  let channels: UnsafePointer<Float>
  /// (images, channels): added to the difference in the relation term.
  let shift: UnsafePointer<Float>
  let relation: Float
  /// (images, area) and (images, channels): gradient by |s| of the attention term.
  let pixelSlopes, channelSlopes: UnsafePointer<Float>

  public init(
    pixels: UnsafePointer<Float>, channels: UnsafePointer<Float>, shift: UnsafePointer<Float>,
    relation: Float, pixelSlopes: UnsafePointer<Float>, channelSlopes: UnsafePointer<Float>
  ) {
    (self.pixels, self.channels, self.shift) = (pixels, channels, shift)
    (self.relation, self.pixelSlopes, self.channelSlopes) = (relation, pixelSlopes, channelSlopes)
  }
}

/// Where the gradients of `Kernels.focalGlobal` go.
public struct FocalGradients {
  let map, shift: UnsafeMutablePointer<Float>

  public init(map: UnsafeMutablePointer<Float>, shift: UnsafeMutablePointer<Float>) {
    (self.map, self.shift) = (map, shift)
  }
}

/// sign(of) · value; 0 where `of` is 0.
@inline(__always)
private func withSign(of sign: SIMD16<Float>, _ value: SIMD16<Float>) -> SIMD16<Float> {
  let flip = unsafeBitCast(sign, to: SIMD16<UInt32>.self) & 0x8000_0000
  let turned = unsafeBitCast(
    unsafeBitCast(value, to: SIMD16<UInt32>.self) ^ flip, to: SIMD16<Float>.self)
  return turned.replacing(with: 0, where: sign .== 0)
}

extension Kernels {
  /// The parts of FGD (Yang et al., CVPR 2022) that add up over all elements, in one pass:
  /// with d = s - t and e = d + shift[n, c],
  ///
  ///     sum of pixels[n, p] · channels[n, c] · d² + relation · e²
  ///
  /// Gradients: to s, 2 pixels channels d + 2 relation e + sign(s) (pixelSlopes + channelSlopes), where
  /// the slopes bring in the attention term; to shift, sum over p of 2 relation e.
  public static func focalGlobal(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, _ map: ChannelGeometry,
    _ weights: FocalWeights, _ gradients: FocalGradients? = nil
  ) -> Double {
    let size = map.planeSize
    return reduceChunks(count: map.planes, chunk: map.planeChunk) { range in
      var total = 0.0
      for plane in range {
        let (s, t) = (student + plane * size, teacher + plane * size)
        total +=
          gradients.map { focalPlane(s, t, map, plane, weights, $0) }
          ?? focalPlane(s, t, map, plane, weights)
      }
      return total
    }
  }

  /// The value of one plane.
  private static func focalPlane(
    _ s: UnsafePointer<Float>, _ t: UnsafePointer<Float>, _ map: ChannelGeometry, _ plane: Int,
    _ weights: FocalWeights
  ) -> Double {
    let pixels = weights.pixels + plane / map.blocks * map.area
    let (channels, shift) = (
      channelLanes(weights.channels, map, plane: plane),
      channelLanes(weights.shift, map, plane: plane)
    )
    return sumPlane(map.planeSize) { i, rest in
      let d = planeLanes(s, i, rest) - planeLanes(t, i, rest)
      let e = rest == 0 ? d + shift : cleared(d + shift, from: rest)
      return d * d * (channels * pixelLanes(pixels, i, rest, map.block)) + e * e * weights.relation
    }
  }

  /// The value of one plane with its gradients.
  private static func focalPlane(
    _ s: UnsafePointer<Float>, _ t: UnsafePointer<Float>, _ map: ChannelGeometry, _ plane: Int,
    _ weights: FocalWeights, _ gradients: FocalGradients
  ) -> Double {
    let (image, part) = (plane / map.blocks, plane % map.blocks)
    let (size, block) = (map.planeSize, map.block)
    let pixels = weights.pixels + image * map.area
    let slopes = weights.pixelSlopes + image * map.area
    let out = gradients.map + plane * size
    let channels = channelLanes(weights.channels, map, plane: plane)
    let shift = channelLanes(weights.shift, map, plane: plane)
    let slope = channelLanes(weights.channelSlopes, map, plane: plane)
    var shiftSums = SIMD16<Double>(repeating: 0)
    var total = 0.0
    var start = 0
    while start < size {
      let end = min(start + 4096, size)
      var lanes = SIMD16<Float>(repeating: 0)
      total += sumPlane(end - start) { offset, rest in
        let i = start &+ offset
        let own = planeLanes(s, i, rest)
        let d = own - planeLanes(t, i, rest)
        let e = rest == 0 ? d + shift : cleared(d + shift, from: rest)
        let weighted = d * (channels * pixelLanes(pixels, i, rest, block))
        let pull = e * weights.relation
        lanes += pull
        let attention = slope + pixelLanes(slopes, i, rest, block)
        let signed = withSign(of: own, attention)
        let both = weighted + pull
        storePlane(both + both + signed, out, i, rest)
        return weighted * d + pull * e
      }
      shiftSums += SIMD16<Double>(lanes)
      start = end
    }
    for channel in 0..<min(block, map.channels - part * block) {
      var sum = 0.0
      for lane in stride(from: channel, to: 16, by: block) { sum += shiftSums[lane] }
      gradients.shift[image * map.channels + part * block + channel] = Float(2 * sum)
    }
    return total
  }
}

extension Kernels {
  /// FGD's attention of each row of (rows, columns): out = columns · softmax(x / temperature).
  public static func focalAttention(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, rows: Int, columns: Int,
    temperature: Float
  ) {
    if columns <= 0 { return }
    for row in 0..<rows {
      let target = out + row * columns
      let total = exponentials(x + row * columns, target, columns, scale: 1 / temperature).total
      let factor = Float(columns) / total
      for i in 0..<columns { target[i] *= factor }
    }
  }

  /// sum |a - b| over rows of attention; `slopes` gets scale · gradient by the x of a's softmax:
  /// a_i / temperature · (sign_i - sum_j sign_j a_j / columns), sign = sign(a - b).
  public static func attentionDistance(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, rows: Int, columns: Int,
    temperature: Float, scale: Float, slopes: UnsafeMutablePointer<Float>
  ) -> Double {
    var value = 0.0
    for row in 0..<rows {
      let (own, other, out) = (a + row * columns, b + row * columns, slopes + row * columns)
      var inner = 0.0
      for i in 0..<columns {
        let d = own[i] - other[i]
        let sign: Float = d > 0 ? 1 : (d < 0 ? -1 : 0)
        value += Double(abs(d))
        inner += Double(sign * own[i])
        out[i] = sign
      }
      let mean = Float(inner / Double(max(1, columns)))
      for i in 0..<columns { out[i] = scale / temperature * own[i] * (out[i] - mean) }
    }
    return value
  }
}
