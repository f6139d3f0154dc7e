extension Kernels {
  /// sum over n, c, p of spatial[n, p] · channels[n, c] · (s - t)²; gradient to s:
  /// scale · 2 · spatial · channels · (s - t). The sum behind FGD's L_fg and L_bg, FGFI, DeFeat, FRS.
  ///
  /// Both maps have the layout of `map` (block 1, 8 or 16), with zeros in the channel padding.
  /// - Parameters:
  ///   - spatial: (images, area), or nil for 1.
  ///   - channels: (images, channels), or nil for 1.
  public static func weightedSquares(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, _ map: ChannelGeometry,
    spatial: UnsafePointer<Float>? = nil, channels: UnsafePointer<Float>? = nil, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    let size = map.planeSize
    return reduceChunks(count: map.planes, chunk: map.planeChunk) { range in
      var total = 0.0
      for plane in range {
        let weights =
          channels.map { channelLanes($0, map, plane: plane) } ?? SIMD16<Float>(repeating: 1)
        total += weightedPlane(
          student + plane * size, teacher + plane * size, size, map.block,
          spatial.map { $0 + plane / map.blocks * map.area }, weights, 2 * scale,
          gradient.map { $0 + plane * size })
      }
      return total
    }
  }

  /// One plane; `slope` is twice the scale of the gradient.
  @inline(__always)
  private static func weightedPlane(
    _ s: UnsafePointer<Float>, _ t: UnsafePointer<Float>, _ count: Int, _ block: Int,
    _ spatial: UnsafePointer<Float>?, _ weights: SIMD16<Float>, _ slope: Float,
    _ gradient: UnsafeMutablePointer<Float>?
  ) -> Double {
    let slopes = SIMD16<Float>(repeating: slope)
    switch (spatial, gradient) {
    case (let spatial?, let gradient?):
      return sumPlane(count) { i, rest in
        let d = planeLanes(s, i, rest) - planeLanes(t, i, rest)
        let weighted = d * (weights * pixelLanes(spatial, i, rest, block))
        storePlane(weighted * slopes, gradient, i, rest)
        return weighted * d
      }
    case (nil, let gradient?):
      return sumPlane(count) { i, rest in
        let d = planeLanes(s, i, rest) - planeLanes(t, i, rest)
        let weighted = d * weights
        storePlane(weighted * slopes, gradient, i, rest)
        return weighted * d
      }
    case (let spatial?, nil):
      return sumPlane(count) { i, rest in
        let d = planeLanes(s, i, rest) - planeLanes(t, i, rest)
        return d * d * (weights * pixelLanes(spatial, i, rest, block))
      }
    case (nil, nil):
      return sumPlane(count) { i, rest in
        let d = planeLanes(s, i, rest) - planeLanes(t, i, rest)
        return d * d * weights
      }
    }
  }
}
