/// Sums of a channel block over the batch, of values less the channel's first one, per lane.
private struct Moments {
  var s = SIMD16<Double>(repeating: 0)
  var t = SIMD16<Double>(repeating: 0)
  var ss = SIMD16<Double>(repeating: 0)
  var tt = SIMD16<Double>(repeating: 0)
  var st = SIMD16<Double>(repeating: 0)
}

/// How each lane is standardised: (x - origin - mean) · inverse; `pull` is k of the gradient.
private struct Standard {
  var originS = SIMD16<Float>(repeating: 0)
  var originT = SIMD16<Float>(repeating: 0)
  var meanS = SIMD16<Float>(repeating: 0)
  var meanT = SIMD16<Float>(repeating: 0)
  var inverseS = SIMD16<Float>(repeating: 0)
  var inverseT = SIMD16<Float>(repeating: 0)
  var pull = SIMD16<Float>(repeating: 0)
}

extension Kernels {
  /// sum (z_S - z_T)² of PKD (Cao et al., NeurIPS 2022): z = (F - mean) / (std + 1e-6) per channel over
  /// images and pixels, std unbiased; 0 where there is one value only.
  ///
  /// Gradient to the student: with i = 1 / (std_S + 1e-6), j = 1 / (std_T + 1e-6), cov the unbiased
  /// covariance and k = i std_S - j cov / std_S (0 for a constant channel, as PyTorch has it):
  /// scale · 2 i (z_S - z_T - k z_S). One pass for the moments, one for value and gradient.
  public static func pearson(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, _ map: ChannelGeometry,
    scale: Float = 1, gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    if map.images * map.planeSize == 0 { return 0 }
    let chunk = max(1, map.planeChunk / map.images)
    return reduceChunks(count: map.blocks, chunk: chunk) { range in
      var total = 0.0
      for part in range {
        let standard = standardisation(student, teacher, map, part)
        for image in 0..<map.images {
          let offset = (image * map.blocks + part) * map.planeSize
          total += standardPlane(
            student + offset, teacher + offset, map.planeSize, standard, 2 * scale,
            gradient.map { $0 + offset })
        }
      }
      return total
    }
  }

  @inline(__always)
  private static func standardPlane(
    _ s: UnsafePointer<Float>, _ t: UnsafePointer<Float>, _ count: Int, _ by: Standard,
    _ slope: Float, _ gradient: UnsafeMutablePointer<Float>?
  ) -> Double {
    let outer = by.inverseS * slope
    guard let gradient else {
      return sumPlane(count) { i, rest in
        let zs = (planeLanes(s, i, rest) - by.originS - by.meanS) * by.inverseS
        let zt = (planeLanes(t, i, rest) - by.originT - by.meanT) * by.inverseT
        let d = rest == 0 ? zs - zt : cleared(zs - zt, from: rest)
        return d * d
      }
    }
    return sumPlane(count) { i, rest in
      let zs = (planeLanes(s, i, rest) - by.originS - by.meanS) * by.inverseS
      let zt = (planeLanes(t, i, rest) - by.originT - by.meanT) * by.inverseT
      let d = rest == 0 ? zs - zt : cleared(zs - zt, from: rest)
      storePlane((d - by.pull * zs) * outer, gradient, i, rest)
      return d * d
    }
  }

  private static func standardisation(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, _ map: ChannelGeometry,
    _ part: Int
  ) -> Standard {
    var standard = Standard()
    let first = part * map.planeSize
    standard.originS = origins(student + first, map.planeSize, map.block)
    standard.originT = origins(teacher + first, map.planeSize, map.block)
    var moments = Moments()
    for image in 0..<map.images {
      let offset = (image * map.blocks + part) * map.planeSize
      addMoments(student + offset, teacher + offset, map.planeSize, standard, &moments)
    }
    let n = Double(map.images * map.area)
    for channel in 0..<map.block {
      var (s, t, ss, tt, st) = (0.0, 0.0, 0.0, 0.0, 0.0)
      for lane in stride(from: channel, to: 16, by: map.block) {
        s += moments.s[lane]
        t += moments.t[lane]
        ss += moments.ss[lane]
        tt += moments.tt[lane]
        st += moments.st[lane]
      }
      let free = n > 1 ? 1 / (n - 1) : 0
      let stdS = max(0, (ss - s * s / n) * free).squareRoot()
      let stdT = max(0, (tt - t * t / n) * free).squareRoot()
      let covariance = (st - s * t / n) * free
      let (i, j) = (1 / (stdS + 1e-6), 1 / (stdT + 1e-6))
      for lane in stride(from: channel, to: 16, by: map.block) {
        standard.meanS[lane] = Float(s / n)
        standard.meanT[lane] = Float(t / n)
        standard.inverseS[lane] = Float(i)
        standard.inverseT[lane] = Float(j)
        standard.pull[lane] = stdS > 0 ? Float(i * stdS - j * covariance / stdS) : 0
      }
    }
    return standard
  }

  /// A number near each channel's mean, so that squares do not cancel: the mean of the plane's first
  /// pixels, or the first pixel exactly where they are all alike.
  private static func origins(
    _ plane: UnsafePointer<Float>, _ count: Int, _ block: Int
  ) -> SIMD16<Float> {
    var origins = SIMD16<Float>(repeating: 0)
    let pixels = min(count / block, 64)
    for channel in 0..<block {
      let first = plane[channel]
      var total: Float = 0
      for pixel in 0..<pixels { total += plane[pixel * block + channel] }
      let mean = total / Float(pixels)
      let origin = abs(mean - first) <= 1e-5 * abs(first) ? first : mean
      for lane in stride(from: channel, to: 16, by: block) { origins[lane] = origin }
    }
    return origins
  }

  /// Adds one plane; floats within 256 pixels of a lane, doubles across.
  private static func addMoments(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, _ count: Int,
    _ standard: Standard, _ moments: inout Moments
  ) {
    var start = 0
    while start < count {
      let end = min(start + 4096, count)
      let zero = SIMD16<Float>(repeating: 0)
      var (sumS, sumT, sumSS, sumTT, sumST) = (zero, zero, zero, zero, zero)
      while start < end {
        let rest = end - start >= 16 ? 0 : end - start
        var s = planeLanes(student, start, rest) - standard.originS
        var t = planeLanes(teacher, start, rest) - standard.originT
        if rest > 0 { (s, t) = (cleared(s, from: rest), cleared(t, from: rest)) }
        sumS += s
        sumT += t
        sumSS += s * s
        sumTT += t * t
        sumST += s * t
        start += 16
      }
      moments.s += SIMD16<Double>(sumS)
      moments.t += SIMD16<Double>(sumT)
      moments.ss += SIMD16<Double>(sumSS)
      moments.tt += SIMD16<Double>(sumTT)
      moments.st += SIMD16<Double>(sumST)
    }
  }
}
