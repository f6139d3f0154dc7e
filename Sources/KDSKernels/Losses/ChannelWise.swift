#if canImport(Glibc)
  import Glibc
#endif

/// Per lane of a plane: sums of e^s, of e^t and of e^t times the difference or the student's logit.
private struct SpatialSums {
  var student = SIMD16<Double>(repeating: 0)
  var teacher = SIMD16<Double>(repeating: 0)
  var mixed = SIMD16<Double>(repeating: 0)
}

/// What one plane is computed with; logits are divided by the temperature.
private struct SpatialRow {
  let student, teacher: UnsafePointer<Float>
  let count, block: Int
  let inverse: Float
  let entropy: Bool
}

extension Kernels {
  /// CWD (Shu et al., ICCV 2021), summed over images and channels. With phi the softmax of a channel
  /// over its pixels: sum_i phi_T log(phi_T / phi_S), or without `entropy` - sum_i phi_T log phi_S.
  ///
  /// phi(y)_i = e^(y_i / temperature) / sum_j e^(y_j / temperature). Gradient to the student, the same
  /// for both forms: scale / temperature (phi_S - phi_T). Both maps have the layout of `map`.
  public static func channelWiseDivergence(
    _ student: UnsafePointer<Float>, _ teacher: UnsafePointer<Float>, _ map: ChannelGeometry,
    temperature: Float, entropy: Bool, scale: Float = 1,
    gradient: UnsafeMutablePointer<Float>? = nil
  ) -> Double {
    let size = map.planeSize
    if size == 0 { return 0 }
    return reduceChunks(count: map.planes, chunk: map.planeChunk) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: gradient == nil ? 1 : size) {
        buffer in
        var total = 0.0
        for plane in range {
          let row = SpatialRow(
            student: student + plane * size, teacher: teacher + plane * size, count: size,
            block: map.block, inverse: 1 / temperature, entropy: entropy)
          let present = min(map.block, map.channels - plane % map.blocks * map.block)
          total += spatialLoss(
            row, present, scale / temperature, gradient.map { $0 + plane * size },
            buffer.baseAddress!)
        }
        return total
      }
    }
  }

  /// The channels of one plane. The student's exponentials wait in the gradient, the teacher's in
  /// `scratch`, for their sums.
  private static func spatialLoss(
    _ row: SpatialRow, _ present: Int, _ slope: Float, _ gradient: UnsafeMutablePointer<Float>?,
    _ scratch: UnsafeMutablePointer<Float>
  ) -> Double {
    let sums: SpatialSums
    if let gradient {
      sums = exponentialSums(row) { i, rest, s, t in
        storePlane(s, gradient, i, rest)
        storePlane(t, scratch, i, rest)
      }
    } else {
      sums = exponentialSums(row) { _, _, _, _ in }
    }
    var value = 0.0
    var shareS = SIMD16<Float>(repeating: 0)
    var shareT = shareS
    for channel in 0..<row.block {
      var (s, t, mixed) = (0.0, 0.0, 0.0)
      for lane in stride(from: channel, to: 16, by: row.block) {
        s += sums.student[lane]
        t += sums.teacher[lane]
        mixed += sums.mixed[lane]
      }
      if channel < present {
        value += mixed * Double(row.inverse) / t + log(s) - (row.entropy ? log(t) : 0)
      }
      for lane in stride(from: channel, to: 16, by: row.block) {
        shareS[lane] = Float(Double(slope) / s)
        shareT[lane] = Float(Double(slope) / t)
      }
    }
    if let gradient {
      eachOfPlane(row.count) { i, rest in
        let s = planeLanes(gradient, i, rest)
        storePlane(s * shareS - planeLanes(scratch, i, rest) * shareT, gradient, i, rest)
      }
    }
    return value
  }

  /// With each channel's maximum taken off: sums of e^s and e^t, and of e^t (t - s), or of -e^t s
  /// without the teacher's entropy. `keep` gets the exponentials.
  @inline(__always)
  private static func exponentialSums(
    _ row: SpatialRow, _ keep: (Int, Int, SIMD16<Float>, SIMD16<Float>) -> Void
  ) -> SpatialSums {
    let peakS = peaks(row.student, row.count, row.block)
    let peakT = peaks(row.teacher, row.count, row.block)
    let own = SIMD16<Float>(repeating: row.entropy ? 1 : 0)
    // e^(x / temperature) = 2^(x · power)
    let power = row.inverse * 1.442_695_04
    var sums = SpatialSums()
    var start = 0
    while start < row.count {
      let end = min(start + 4096, row.count)
      var (zs, zt, mixed) = (
        SIMD16<Float>(repeating: 0), SIMD16<Float>(repeating: 0), SIMD16<Float>(repeating: 0)
      )
      while start < end {
        let rest = end - start >= 16 ? 0 : end - start
        let s = planeLanes(row.student, start, rest) - peakS
        let t = planeLanes(row.teacher, start, rest) - peakT
        var es = powerOfTwo(s * power)
        var et = powerOfTwo(t * power)
        if rest > 0 { (es, et) = (cleared(es, from: rest), cleared(et, from: rest)) }
        keep(start, rest, es, et)
        zs += es
        zt += et
        mixed += et * (own * t - s)
        start += 16
      }
      sums.student += SIMD16<Double>(zs)
      sums.teacher += SIMD16<Double>(zt)
      sums.mixed += SIMD16<Double>(mixed)
    }
    return sums
  }

  /// The largest value of each lane's channel.
  private static func peaks(
    _ plane: UnsafePointer<Float>, _ count: Int, _ block: Int
  ) -> SIMD16<Float> {
    var lanes = SIMD16<Float>(repeating: -Float.greatestFiniteMagnitude)
    var i = 0
    while i + 16 <= count {
      lanes = maximum(lanes, load16(plane + i))
      i += 16
    }
    if i < count {
      let tail = loadTail(plane + i, count - i, filler: -Float.greatestFiniteMagnitude)
      lanes = maximum(lanes, tail)
    }
    for channel in 0..<block {
      var peak = lanes[channel]
      for lane in stride(from: channel, to: 16, by: block) { peak = max(peak, lanes[lane]) }
      for lane in stride(from: channel, to: 16, by: block) { lanes[lane] = peak }
    }
    return lanes
  }
}
