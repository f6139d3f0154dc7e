extension Reference {
  /// x Φ(x) by libm.
  public static func gelu(_ x: [Float]) -> [Float] {
    x.map { Float(Double($0) * 0.5 * complementaryError(-Double($0) / 2.0.squareRoot())) }
  }

  /// Attention inside shifted windows, step by step as in Liu et al. 2021: pad, roll, cut, attend with
  /// biases and a mask of -100 between regions, put together, roll back, crop.
  ///
  /// - Parameters:
  ///   - qkv: (N, H, W, 3·channels); `table`: ((2·window − 1)², heads); `filler`: (3·channels).
  ///   - shift: before the rule that a side of a single window is not moved.
  public static func windowAttention(
    _ qkv: [Float], images: Int, height: Int, width: Int, channels: Int, heads: Int, window: Int,
    shift: Int, table: [Float], filler: [Float]
  ) -> [Float] {
    let tall = (height + window - 1) / window * window
    let wide = (width + window - 1) / window * window
    let (down, right) = (tall > window ? shift : 0, wide > window ? shift : 0)
    let depth = channels / heads
    func rolled(_ image: Int, _ y: Int, _ x: Int, _ channel: Int) -> Double {
      let (row, column) = ((y + down) % tall, (x + right) % wide)
      if row >= height || column >= width { return Double(filler[channel]) }
      return Double(qkv[((image * height + row) * width + column) * 3 * channels + channel])
    }
    func slice(_ place: Int, _ side: Int, _ moved: Int) -> Int {
      moved == 0 || place < side - window ? 0 : place < side - moved ? 1 : 2
    }
    var out = [Float](repeating: 0, count: images * height * width * channels)
    for image in 0..<images {
      for y in 0..<tall {
        for x in 0..<wide {
          let (row, column) = ((y + down) % tall, (x + right) % wide)
          if row >= height || column >= width { continue }
          let (top, left) = (y / window * window, x / window * window)
          for head in 0..<heads {
            var scores: [Double] = []
            for key in 0..<window * window {
              let (ky, kx) = (top + key / window, left + key % window)
              var score = 0.0
              for d in 0..<depth {
                let channel = head * depth + d
                score += rolled(image, y, x, channel) * rolled(image, ky, kx, channels + channel)
              }
              score /= Double(depth).squareRoot()
              let position = (y - ky + window - 1) * (2 * window - 1) + x - kx + window - 1
              score += Double(table[position * heads + head])
              let alike =
                slice(y, tall, down) == slice(ky, tall, down)
                && slice(x, wide, right) == slice(kx, wide, right)
              scores.append(alike ? score : score - 100)
            }
            let peak = scores.max() ?? 0
            let weights = scores.map { exponential($0 - peak) }
            let total = weights.reduce(0, +)
            for d in 0..<depth {
              let channel = head * depth + d
              var sum = 0.0
              for key in 0..<window * window {
                let (ky, kx) = (top + key / window, left + key % window)
                sum += weights[key] * rolled(image, ky, kx, 2 * channels + channel)
              }
              out[((image * height + row) * width + column) * channels + channel] =
                Float(sum / total)
            }
          }
        }
      }
    }
    return out
  }
}
