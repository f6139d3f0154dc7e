/// Where the gradients of `Kernels.windowAttention` go; all are overwritten.
public struct WindowAttentionGradients {
  /// (N, H, W, 3·channels)
  public let qkv: UnsafeMutablePointer<Float>
  /// ((2·window − 1)², heads)
  public let table: UnsafeMutablePointer<Float>
  /// (3·channels), or nil when nobody asks.
  public let filler: UnsafeMutablePointer<Float>?

  public init(
    qkv: UnsafeMutablePointer<Float>, table: UnsafeMutablePointer<Float>,
    filler: UnsafeMutablePointer<Float>?
  ) {
    (self.qkv, self.table, self.filler) = (qkv, table, filler)
  }
}

/// Sums of biases and fillers are taken over at most this many pieces of the windows, then in order.
private let pieces = 16

extension Kernels {
  /// Gradients of `windowAttention`; the probabilities are computed again from its inputs.
  ///
  /// With P the probabilities and g the gradient of the output: dv = Pᵀ g, dS = P ∘ (g vᵀ − rows'
  /// sums of P ∘ g vᵀ), dq = dS k, dk = dSᵀ q, and the biases get the sum of dS over windows.
  public static func windowAttentionBackward(
    _ qkv: UnsafePointer<Float>, _ shape: WindowGeometry, table: UnsafePointer<Float>,
    filler: UnsafePointer<Float>?, gradOutput: UnsafePointer<Float>,
    _ gradients: WindowAttentionGradients
  ) {
    let square = shape.tokens * shape.vectorTokens
    let each = square + 3 * shape.depth
    let length = max(1, (shape.windows + pieces - 1) / pieces)
    let chunks = (shape.windows + length - 1) / length
    withScratch(shape.heads * square) { biases in
      expandBias(table, shape, biases)
      withScratch(chunks * shape.heads * each) { partials in
        partials.update(repeating: 0, count: chunks * shape.heads * each)
        parallelFor(count: chunks * shape.heads, grain: 1) { range in
          withWorkspace(shape) { scratch, places, inverses in
            for item in range {
              let (chunk, head) = (item / shape.heads, item % shape.heads)
              let sums = partials + item * each
              for window in chunk * length..<min((chunk + 1) * length, shape.windows) {
                shape.places(window: window, places)
                let masked = shape.regions(window: window, scratch.regions)
                scratch.gatherInputs(qkv, head, places, filler)
                scratch.exponentiate(
                  bias: biases + head * square, masked: masked, inverses: inverses)
                scratch.differentiate(gradOutput, head, places, inverses)
                scratch.addSlopes(to: sums)
                scratch.scatter(head, places, gradients.qkv, filler: sums + square)
              }
            }
          }
        }
        collect(partials, shape, chunks: chunks, each: each, gradients)
      }
    }
  }

  /// Adds the pieces' sums in order.
  private static func collect(
    _ partials: UnsafePointer<Float>, _ shape: WindowGeometry, chunks: Int, each: Int,
    _ gradients: WindowAttentionGradients
  ) {
    let (tokens, across, depth) = (shape.tokens, shape.vectorTokens, shape.depth)
    let positions = (2 * shape.window - 1) * (2 * shape.window - 1)
    parallelFor(count: shape.heads, grain: 1) { range in
      for head in range {
        for position in 0..<positions { gradients.table[position * shape.heads + head] = 0 }
        for part in 0..<3 {
          for d in 0..<depth { gradients.filler?[part * shape.channels + head * depth + d] = 0 }
        }
        for chunk in 0..<chunks {
          let sums = partials + (chunk * shape.heads + head) * each
          for query in 0..<tokens {
            for key in 0..<tokens {
              let position = shape.relativePosition(query, key)
              gradients.table[position * shape.heads + head] += sums[query * across + key]
            }
          }
          guard let filler = gradients.filler else { continue }
          let rest = sums + tokens * across
          for part in 0..<3 {
            for d in 0..<depth {
              filler[part * shape.channels + head * depth + d] += rest[part * depth + d]
            }
          }
        }
      }
    }
  }
}

extension WindowScratch {
  /// From `exponentiate`: `slopes` by the scores, then `keySlopes`, `valueSlopes` and in `result` those of q.
  @inline(__always)
  func differentiate(
    _ gradOutput: UnsafePointer<Float>, _ head: Int, _ places: UnsafePointer<Int>,
    _ inverses: UnsafePointer<Float>
  ) {
    let (tokens, width, across) = (shape.tokens, shape.vectorDepth, shape.vectorTokens)
    gather(
      gradOutput + head * shape.depth, stride: shape.channels, places, filler: nil,
      into: upstream)
    transpose(v, valuesAcross)
    SmallProduct(
      rows: shape.tileRows, columns: across, inner: shape.depth, aRow: width, aInner: 1,
      bRow: across, cRow: across)(upstream, valuesAcross, slopes)
    for token in 0..<tokens {
      let (p, slope) = (scores + token &* across, slopes + token &* across)
      let inverse = inverses[token]
      for i in 0..<across { p[i] *= inverse }
      let average = dot(p, slope, across)
      for i in 0..<across { slope[i] = p[i] * (slope[i] - average) }
    }
    let down = SmallProduct(
      rows: tokens, columns: width, inner: tokens, aRow: 1, aInner: across, bRow: width,
      cRow: width)
    down(scores, upstream, valueSlopes)
    down(slopes, q, keySlopes)
    SmallProduct(
      rows: tokens, columns: width, inner: tokens, aRow: across, aInner: 1, bRow: width,
      cRow: width)(slopes, k, result)
  }

  /// Adds the slopes of the scores to (tokens, vectorTokens) sums.
  @inline(__always)
  func addSlopes(to sums: UnsafeMutablePointer<Float>) {
    for i in 0..<shape.tokens &* shape.vectorTokens { sums[i] += slopes[i] }
  }

  /// Gradients of q, k and v to the tokens' places; those of padding are added to `filler` (3·depth).
  @inline(__always)
  func scatter(
    _ head: Int, _ places: UnsafePointer<Int>, _ out: UnsafeMutablePointer<Float>,
    filler: UnsafeMutablePointer<Float>
  ) {
    let (depth, width) = (shape.depth, shape.vectorDepth)
    let scale = 1 / Float(depth).squareRoot()
    for (part, source) in [result, keySlopes, valueSlopes].enumerated() {
      let factor = part == 0 ? scale : 1
      let (stride, first) = (3 * shape.channels, part * shape.channels + head * depth)
      let sums = filler + part * depth
      for token in 0..<shape.tokens {
        let row = source + token &* width
        if places[token] >= 0 {
          let target = out + (places[token] &* stride &+ first)
          for d in 0..<depth { target[d] = row[d] * factor }
        } else {
          for d in 0..<depth { sums[d] += row[d] * factor }
        }
      }
    }
  }
}
