/// What multiplies and shifts the terms of `Kernels.focalGlobal`; P = (images, area), C = (images,
/// channels), V = (channels).
public struct FocalWeights {
  /// P, C: weights of the squared difference.
  public var pixels, channels: UnsafePointer<Float>
  /// C: added to the difference in the relation term, which has the weight `relation`.
  public var shift: UnsafePointer<Float>
  public var relation: Float

  public init(
    pixels: UnsafePointer<Float>, channels: UnsafePointer<Float>, shift: UnsafePointer<Float>,
    relation: Float
  ) {
    (self.pixels, self.channels, self.shift) = (pixels, channels, shift)
    self.relation = relation
  }
}

/// What the gradient of `Kernels.focalGlobal` has besides, and where gradients go.
public struct FocalGradients {
  /// P, C: gradient by |s| of the attention term.
  public var pixelSlopes, channelSlopes: UnsafePointer<Float>
  /// P, C: attention of the student's context block, gradient by its context.
  public var attention, context: UnsafePointer<Float>
  /// P: gradients by the logits of both blocks' attention; V: the student's logit weights.
  public var studentLogits, teacherLogits, logitWeights: UnsafePointer<Float>
  /// The student's gradient.
  public var map: UnsafeMutablePointer<Float>
  /// C: sums over the pixels of logit gradients times the maps.
  public var studentProducts, teacherProducts: UnsafeMutablePointer<Float>

  public init(
    slopes: (pixels: UnsafePointer<Float>, channels: UnsafePointer<Float>),
    attention: UnsafePointer<Float>, context: UnsafePointer<Float>,
    logits: (student: UnsafePointer<Float>, teacher: UnsafePointer<Float>),
    logitWeights: UnsafePointer<Float>, map: UnsafeMutablePointer<Float>,
    products: (student: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>)
  ) {
    (pixelSlopes, channelSlopes) = (slopes.pixels, slopes.channels)
    (self.attention, self.context, self.logitWeights) = (attention, context, logitWeights)
    (studentLogits, teacherLogits) = (logits.student, logits.teacher)
    (self.map, studentProducts, teacherProducts) = (map, products.student, products.teacher)
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
  /// Gradient to s: 2 pixels channels d + 2 relation e + sign(s) (pixelSlopes + channelSlopes), where
  /// the slopes bring in the attention term, + attention · context + studentLogits · logitWeights, what
  /// the shift hands back through the student's context block.
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
    let (size, block, first) = (map.planeSize, map.block, plane / map.blocks * map.area)
    let (pixels, slopes) = (weights.pixels + first, gradients.pixelSlopes + first)
    let (attention, logits) = (gradients.attention + first, gradients.studentLogits + first)
    let (others, out) = (gradients.teacherLogits + first, gradients.map + plane * size)
    let channels = channelLanes(weights.channels, map, plane: plane)
    let shift = channelLanes(weights.shift, map, plane: plane)
    let slope = channelLanes(gradients.channelSlopes, map, plane: plane)
    let context = channelLanes(gradients.context, map, plane: plane)
    let logitWeights = channelLanes(gradients.logitWeights, map, plane: plane, perImage: false)
    var (ownProducts, otherProducts) = (
      SIMD16<Double>(repeating: 0), SIMD16<Double>(repeating: 0)
    )
    var (total, start) = (0.0, 0)
    while start < size {
      let end = min(start + 4096, size)
      var (ownLanes, otherLanes) = (SIMD16<Float>(repeating: 0), SIMD16<Float>(repeating: 0))
      total += sumPlane(end - start) { offset, rest in
        let i = start &+ offset
        let (own, other) = (planeLanes(s, i, rest), planeLanes(t, i, rest))
        let d = own - other
        let e = rest == 0 ? d + shift : cleared(d + shift, from: rest)
        let weighted = d * (channels * pixelLanes(pixels, i, rest, block))
        let pull = e * weights.relation
        let logit = pixelLanes(logits, i, rest, block)
        ownLanes += logit * own
        otherLanes += pixelLanes(others, i, rest, block) * other
        let signed = withSign(of: own, slope + pixelLanes(slopes, i, rest, block))
        let both = weighted + pull
        let back = pixelLanes(attention, i, rest, block) * context + logit * logitWeights
        storePlane(both + both + signed + back, out, i, rest)
        return weighted * d + pull * e
      }
      ownProducts += SIMD16<Double>(ownLanes)
      otherProducts += SIMD16<Double>(otherLanes)
      start = end
    }
    storeChannels(ownProducts, map, plane, gradients.studentProducts)
    storeChannels(otherProducts, map, plane, gradients.teacherProducts)
    return total
  }
}
