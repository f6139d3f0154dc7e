/// Elements whose products are summed in single precision, 16 lanes wide.
private let stretch = 4096

extension Kernels {
  /// sum over images of ‖s / ‖s‖ - t / ‖t‖‖², the FitNets loss on normalised features; a zero image
  /// counts as the zero vector and gets no gradient.
  ///
  /// Gradient to s, with û, v̂ the unit vectors: scale · 2 / ‖s‖ · (û (û·v̂) - v̂). Two passes: norms and
  /// inner products, then value and gradient.
  /// - Parameter size: floats of one image, padding included (zeros add nothing).
  public static func normalizedSquares(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, images: Int, size: Int,
    scale: Float = 1, gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    let pieces = (size + stretch - 1) / stretch
    return withUnsafeTemporaryAllocation(of: Double.self, capacity: 3 * images * (pieces + 1) + 1) {
      buffer in
      let products = buffer.baseAddress!
      let norms = products + 3 * images * pieces
      parallelFor(count: images * pieces, grain: 4) { range in
        for index in range {
          let first = index / pieces * size + index % pieces * stretch
          let count = min(stretch, size - index % pieces * stretch)
          productSums(student + first, teacher + first, count, products + 3 * index)
        }
      }
      for image in 0..<images {
        unitFactors(products + 3 * image * pieces, pieces, norms + 3 * image)
      }
      return reduceChunks(count: images * pieces, chunk: 4) { range in
        var total = 0.0
        for index in range {
          let first = index / pieces * size + index % pieces * stretch
          total += normalizedPiece(
            student + first, teacher + first, min(stretch, size - index % pieces * stretch),
            norms + 3 * (index / pieces), 2 * scale, gradient.map { $0 + first })
        }
        return total
      }
    }
  }

  /// Sums of s², t² and s · t.
  private static func productSums(
    _ s: UnsafePointer<Float>, _ t: UnsafePointer<Float>, _ count: Int,
    _ out: UnsafeMutablePointer<Double>
  ) {
    let zero = SIMD16<Float>(repeating: 0)
    var (ss, tt, st) = (zero, zero, zero)
    eachOfPlane(count) { i, rest in
      let (a, b) = (planeLanes(s, i, rest), planeLanes(t, i, rest))
      ss += a * a
      tt += b * b
      st += a * b
    }
    out[0] = Double(ss.sum())
    out[1] = Double(tt.sum())
    out[2] = Double(st.sum())
  }

  /// 1 / ‖s‖, 1 / ‖t‖ (0 for zero vectors) and û · v̂.
  private static func unitFactors(
    _ products: UnsafePointer<Double>, _ pieces: Int, _ out: UnsafeMutablePointer<Double>
  ) {
    var (ss, tt, st) = (0.0, 0.0, 0.0)
    for piece in 0..<pieces {
      ss += products[3 * piece]
      tt += products[3 * piece + 1]
      st += products[3 * piece + 2]
    }
    let (s, t) = (ss.squareRoot(), tt.squareRoot())
    out[0] = s < 1e-12 ? 0 : 1 / s
    out[1] = t < 1e-12 ? 0 : 1 / t
    out[2] = st * out[0] * out[1]
  }

  @inline(__always)
  private static func normalizedPiece(
    _ s: UnsafePointer<Float>, _ t: UnsafePointer<Float>, _ count: Int,
    _ norms: UnsafePointer<Double>, _ slope: Float, _ gradient: UnsafeMutablePointer<Float>?
  ) -> Double {
    let (inverseS, inverseT) = (Float(norms[0]), Float(norms[1]))
    guard let gradient else {
      return sumPlane(count) { i, rest in
        let d = planeLanes(s, i, rest) * inverseS - planeLanes(t, i, rest) * inverseT
        return d * d
      }
    }
    // û cos - v̂ = (û - v̂) - û (1 - cos): the difference comes first, where both are alike.
    let lack = inverseS > 0 ? Float(1 - norms[2]) : 0
    let factor = slope * inverseS
    return sumPlane(count) { i, rest in
      let unit = planeLanes(s, i, rest) * inverseS
      let d = unit - planeLanes(t, i, rest) * inverseT
      storePlane((d - unit * lack) * factor, gradient, i, rest)
      return d * d
    }
  }
}

extension Kernels {
  /// AT (Zagoruyko & Komodakis, ICLR 2017) from the attention maps Q (images, area) of both sides: sum
  /// over images of ‖Q_S/‖Q_S‖ - Q_T/‖Q_T‖‖², or of the norm itself without `squared`.
  ///
  /// Norms are at least 1e-12. `slopes` gets scale · gradient by Q_S; 0 where an unsquared norm is 0.
  public static func attentionTransfer(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, images: Int, area: Int,
    squared: Bool, scale: Double, slopes: UnsafeMutablePointer<Float>
  ) -> Double {
    var value = 0.0
    for image in 0..<images {
      let (s, t) = (student + image * area, teacher + image * area)
      let out = slopes + image * area
      var (normS, normT) = (0.0, 0.0)
      for p in 0..<area {
        normS += Double(s[p]) * Double(s[p])
        normT += Double(t[p]) * Double(t[p])
      }
      // Divided, not multiplied: one pixel then gives exactly 1 on both sides.
      (normS, normT) = (max(1e-12, normS.squareRoot()), max(1e-12, normT.squareRoot()))
      var (distance, inner) = (0.0, 0.0)
      for p in 0..<area {
        let unit = Double(s[p]) / normS
        let d = unit - Double(t[p]) / normT
        distance += d * d
        inner += d * unit
      }
      let norm = distance.squareRoot()
      let factor = scale / normS * (squared ? 2 : norm > 0 ? 1 / norm : 0)
      for p in 0..<area {
        let unit = Double(s[p]) / normS
        out[p] = Float(factor * (unit - Double(t[p]) / normT - unit * inner))
      }
      value += squared ? distance : norm
    }
    return value
  }

  /// out = factor · 2 / C · slopes[n, p] · x: factor · the gradient of means of squares over channels.
  public static func meanSquaresBackward(
    _ x: UnsafePointer<Float>, slopes: UnsafePointer<Float>, _ map: ChannelGeometry,
    factor share: Float = 1, _ out: UnsafeMutablePointer<Float>
  ) {
    let factor = share * 2 / Float(max(1, map.channels))
    parallelFor(count: map.planes, grain: map.planeChunk) { range in
      for plane in range {
        let values = slopes + plane / map.blocks * map.area
        let (source, target) = (x + plane * map.planeSize, out + plane * map.planeSize)
        eachOfPlane(map.planeSize) { i, rest in
          let value = planeLanes(source, i, rest) * pixelLanes(values, i, rest, map.block) * factor
          storePlane(value, target, i, rest)
        }
      }
    }
  }
}
