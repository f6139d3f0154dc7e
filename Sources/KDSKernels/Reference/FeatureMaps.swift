extension Reference {
  /// Sizes of a plain map (N, C, H, W) with its area H · W.
  public struct MapShape {
    public let images, channels, area: Int

    public init(_ images: Int, _ channels: Int, _ area: Int) {
      (self.images, self.channels, self.area) = (images, channels, area)
    }
  }

  /// sum of spatial[n, p] · channels[n, c] · (s - t)²; empty weights stand for 1.
  public static func weightedSquares(
    _ s: [Float], _ t: [Float], _ map: MapShape, spatial: [Float] = [], channels: [Float] = []
  ) -> Double {
    var total = 0.0
    for n in 0..<map.images {
      for c in 0..<map.channels {
        for p in 0..<map.area {
          let i = (n * map.channels + c) * map.area + p
          let d = Double(s[i]) - Double(t[i])
          let w = spatial.isEmpty ? 1 : Double(spatial[n * map.area + p])
          let v = channels.isEmpty ? 1 : Double(channels[n * map.channels + c])
          total += w * v * d * d
        }
      }
    }
    return total
  }

  /// CWD without its factor: sum over n, c of KL(phi_T ‖ phi_S), or of the cross-entropy.
  public static func channelWiseDivergence(
    _ s: [Float], _ t: [Float], _ map: MapShape, temperature: Double, entropy: Bool
  ) -> Double {
    var total = 0.0
    for row in 0..<map.images * map.channels {
      let range = row * map.area..<(row + 1) * map.area
      func logits(_ values: [Float]) -> [Double] {
        let scaled = values[range].map { Double($0) / temperature }
        let shift = logarithm(scaled.reduce(0) { $0 + exponential($1) })
        return scaled.map { $0 - shift }
      }
      for (own, other) in zip(logits(s), logits(t)) {
        total += exponential(other) * ((entropy ? other : 0) - own)
      }
    }
    return total
  }

  /// PKD without its factor: sum of (z_S - z_T)².
  public static func pearson(_ s: [Float], _ t: [Float], _ map: MapShape) -> Double {
    func standardised(_ values: [Float], _ channel: Int) -> [Double] {
      var row: [Double] = []
      for n in 0..<map.images {
        let first = (n * map.channels + channel) * map.area
        row += values[first..<first + map.area].map(Double.init)
      }
      let mean = row.reduce(0, +) / Double(row.count)
      let squares = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
      let deviation = row.count > 1 ? (squares / Double(row.count - 1)).squareRoot() : 0
      return row.map { ($0 - mean) / (deviation + 1e-6) }
    }
    var total = 0.0
    for c in 0..<map.channels {
      for (a, b) in zip(standardised(s, c), standardised(t, c)) { total += (a - b) * (a - b) }
    }
    return total
  }

  /// sum over images of ‖s / ‖s‖ - t / ‖t‖‖², each image of `size` numbers; or of the norms.
  public static func unitDistances(
    _ s: [Float], _ t: [Float], images: Int, size: Int, squared: Bool = true
  ) -> Double {
    var total = 0.0
    for n in 0..<images {
      func unit(_ values: [Float]) -> [Double] {
        let row = values[n * size..<(n + 1) * size].map(Double.init)
        let norm = row.reduce(0) { $0 + $1 * $1 }.squareRoot()
        return row.map { norm > 0 ? $0 / norm : 0 }
      }
      let squares = zip(unit(s), unit(t)).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
      total += squared ? squares : squares.squareRoot()
    }
    return total
  }

  /// Mean over the channels of f(x), (N, H · W), or with `overPixels` over the pixels, (N, C).
  public static func means(
    _ x: [Float], _ map: MapShape, overPixels: Bool = false, _ f: (Double) -> Double
  ) -> [Float] {
    let (kept, count) = overPixels ? (map.channels, map.area) : (map.area, map.channels)
    var out = [Double](repeating: 0, count: map.images * kept)
    for n in 0..<map.images {
      for c in 0..<map.channels {
        for p in 0..<map.area {
          let value = f(Double(x[(n * map.channels + c) * map.area + p]))
          out[n * kept + (overPixels ? c : p)] += value / Double(count)
        }
      }
    }
    return out.map(Float.init)
  }

  /// FGD summed over the images: mask A^S_T A^C_T (s - t)², gamma ‖A_S - A_T‖₁ for both attentions and
  /// relation (s - t + shift)².
  public static func focalGlobal(
    _ s: [Float], _ t: [Float], _ map: MapShape, mask: [Float], shift: [Float],
    temperature: Float, gamma: Double, relation: Double
  ) -> Double {
    func attention(_ x: [Float], _ overPixels: Bool) -> [Float] {
      let columns = overPixels ? map.channels : map.area
      let logits = means(x, map, overPixels: overPixels) { abs($0) }.map { $0 / temperature }
      return softmax(logits, rows: map.images, columns: columns).map { $0 * Float(columns) }
    }
    let (pixels, channels) = (attention(t, false), attention(t, true))
    let weights = zip(mask, pixels).map { $0 * $1 }
    var total = weightedSquares(s, t, map, spatial: weights, channels: channels)
    for (own, other) in [(attention(s, false), pixels), (attention(s, true), channels)] {
      for (a, b) in zip(own, other) { total += gamma * Double(abs(a - b)) }
    }
    for i in s.indices {
      let e = Double(s[i]) - Double(t[i]) + Double(shift[i / map.area])
      total += relation * e * e
    }
    return total
  }

  /// sum over p of softmax_p(sum over c of weight_c x_c) x, (N, C).
  public static func contextPool(_ x: [Float], weight: [Float], _ map: MapShape) -> [Float] {
    var logits = [Float](repeating: 0, count: map.images * map.area)
    func index(_ n: Int, _ c: Int, _ p: Int) -> Int { (n * map.channels + c) * map.area + p }
    for n in 0..<map.images {
      for p in 0..<map.area {
        var total = 0.0
        for c in 0..<map.channels { total += Double(weight[c]) * Double(x[index(n, c, p)]) }
        logits[n * map.area + p] = Float(total)
      }
    }
    let shares = softmax(logits, rows: map.images, columns: map.area)
    var out: [Float] = []
    for n in 0..<map.images {
      for c in 0..<map.channels {
        out.append(
          Float(
            (0..<map.area).reduce(0.0) { total, p in
              total + Double(shares[n * map.area + p]) * Double(x[index(n, c, p)])
            }))
      }
    }
    return out
  }
}
