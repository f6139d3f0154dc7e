/// What tokens of unlike regions add to their scores: e^-100 is 0 beside anything.
let maskedScore: Float = -100

/// Less than the largest score by this, and a token's share (1e-20) cannot show. Beyond e^-87 numbers are
/// subnormal, and so are products with a little more: they take a hundred times longer.
private let negligible: Float = -46

/// The scratch memory of one thread, and what one window and head needs in it.
struct WindowScratch {
  let shape: WindowGeometry
  /// q times depth^-½ (tileRows, vectorDepth); k, v and their transposes; rows and columns beyond the
  /// tokens and the depth are 0.
  let q, k, v, keysAcross, valuesAcross: UnsafeMutablePointer<Float>
  /// Gradient of the output, as `q`; a result, or the gradient of q; the gradients of k and v.
  let upstream, result, keySlopes, valueSlopes: UnsafeMutablePointer<Float>
  /// (tileRows, vectorTokens): scores, then probabilities; and their gradient.
  let scores, slopes: UnsafeMutablePointer<Float>
  let regions: UnsafeMutablePointer<Float>

  /// Floats that a scratch needs.
  static func size(_ shape: WindowGeometry) -> Int {
    9 * shape.vectorTokens * shape.vectorDepth + 2 * shape.tileRows * shape.vectorTokens
      + shape.vectorTokens
  }

  init(_ shape: WindowGeometry, _ memory: UnsafeMutablePointer<Float>) {
    memory.update(repeating: 0, count: Self.size(shape))
    var next = memory
    func take(_ count: Int) -> UnsafeMutablePointer<Float> {
      defer { next += count }
      return next
    }
    let vectors = shape.vectorTokens * shape.vectorDepth
    let square = shape.tileRows * shape.vectorTokens
    self.shape = shape
    (q, k, v) = (take(vectors), take(vectors), take(vectors))
    (keysAcross, valuesAcross) = (take(vectors), take(vectors))
    (upstream, result) = (take(vectors), take(vectors))
    (keySlopes, valueSlopes) = (take(vectors), take(vectors))
    (scores, slopes, regions) = (take(square), take(square), take(shape.vectorTokens))
  }

  /// Copies `depth` floats of each token from rows of `stride` floats; padding tokens get `filler`, or 0.
  @inline(__always)
  func gather(
    _ source: UnsafePointer<Float>, stride: Int, _ places: UnsafePointer<Int>,
    filler: UnsafePointer<Float>?, scale: Float = 1, into out: UnsafeMutablePointer<Float>
  ) {
    let (depth, width) = (shape.depth, shape.vectorDepth)
    for token in 0..<shape.tokens {
      let target = out + token &* width
      if places[token] >= 0 {
        let row = source + places[token] &* stride
        for d in 0..<depth { target[d] = row[d] * scale }
      } else if let filler {
        for d in 0..<depth { target[d] = filler[d] * scale }
      } else {
        for d in 0..<depth { target[d] = 0 }
      }
    }
  }

  /// (tokens, depth) to (depth, tokens).
  @inline(__always)
  func transpose(_ source: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>) {
    let (tokens, width, across) = (shape.tokens, shape.vectorDepth, shape.vectorTokens)
    for d in 0..<shape.depth {
      let (from, to) = (source + d, out + d &* across)
      for token in 0..<tokens { to[token] = from[token &* width] }
    }
  }

  /// e to the power of every query's scores, less its largest one, into `scores`; the inverse of each
  /// query's sum into `inverses`.
  @inline(__always)
  func exponentiate(
    bias: UnsafePointer<Float>, masked: Bool, inverses: UnsafeMutablePointer<Float>
  ) {
    let across = shape.vectorTokens
    SmallProduct(
      rows: shape.tileRows, columns: across, inner: shape.depth, aRow: shape.vectorDepth,
      aInner: 1, bRow: across, cRow: across)(q, keysAcross, scores)
    for token in 0..<shape.tokens {
      let row = scores + token &* across
      let peak = addBias(row, bias + token &* across, masked ? regions[token] : nil)
      for i in 0..<across {
        let score = row[i] - peak
        let power = fastExp(score < negligible ? negligible : score)
        row[i] = score < negligible ? 0 : power
      }
      inverses[token] = 1 / total(row)
    }
  }

  /// Adds its biases to a row of scores, and the mask for a token of the region `own`; returns the largest.
  @inline(__always)
  private func addBias(
    _ row: UnsafeMutablePointer<Float>, _ added: UnsafePointer<Float>, _ own: Float?
  ) -> Float {
    var peaks = SIMD16<Float>(repeating: -.infinity)
    var i = 0
    while i < shape.vectorTokens {
      var score = load16(row + i) + load16(added + i)
      if let own {
        let others = load16(regions + i) .!= SIMD16<Float>(repeating: own)
        score = score.replacing(with: score + maskedScore, where: others)
      }
      store16(score, row + i)
      peaks = maximum(peaks, score)
      i &+= 16
    }
    let eight = peaks.lowHalf.replacing(
      with: peaks.highHalf, where: peaks.highHalf .> peaks.lowHalf)
    let four = eight.lowHalf.replacing(
      with: eight.highHalf, where: eight.highHalf .> eight.lowHalf)
    return max(max(four[0], four[1]), max(four[2], four[3]))
  }

  /// The sum of a row.
  @inline(__always)
  private func total(_ row: UnsafePointer<Float>) -> Float {
    var lanes = load16(row)
    var i = 16
    while i < shape.vectorTokens {
      lanes += load16(row + i)
      i &+= 16
    }
    let eight = lanes.lowHalf + lanes.highHalf
    let four = eight.lowHalf + eight.highHalf
    return (four[0] + four[1]) + (four[2] + four[3])
  }
}

extension Kernels {
  /// Attention inside shifted windows (Liu et al. 2021): per window and head
  /// softmax(q kᵀ depth^-½ + bias + mask) v.
  ///
  /// - Parameters:
  ///   - qkv: (N, H, W, 3·channels): all heads' q, then k, then v.
  ///   - table: ((2·window − 1)², heads), the bias by `WindowGeometry.relativePosition`.
  ///   - filler: (3·channels), what a token of padding has for q, k and v; nil for 0.
  ///   - output: (N, H, W, channels).
  public static func windowAttention(
    _ qkv: UnsafePointer<Float>, _ shape: WindowGeometry, table: UnsafePointer<Float>,
    filler: UnsafePointer<Float>?, output: UnsafeMutablePointer<Float>
  ) {
    let square = shape.tokens * shape.vectorTokens
    withScratch(shape.heads * square) { biases in
      expandBias(table, shape, biases)
      parallelFor(count: shape.windows * shape.heads, grain: 4) { range in
        withWorkspace(shape) { scratch, places, inverses in
          var (window, masked) = (-1, false)
          for item in range {
            if item / shape.heads != window {
              window = item / shape.heads
              shape.places(window: window, places)
              masked = shape.regions(window: window, scratch.regions)
            }
            let head = item % shape.heads
            scratch.gatherInputs(qkv, head, places, filler)
            scratch.exponentiate(
              bias: biases + head * square, masked: masked, inverses: inverses)
            scratch.weigh(inverses, head, places, output)
          }
        }
      }
    }
  }

  /// The table's biases for every pair of tokens: (heads, tokens, vectorTokens), -inf behind the tokens.
  static func expandBias(
    _ table: UnsafePointer<Float>, _ shape: WindowGeometry, _ out: UnsafeMutablePointer<Float>
  ) {
    let (tokens, across) = (shape.tokens, shape.vectorTokens)
    parallelFor(count: shape.heads, grain: max(1, elementGrain / (tokens * across))) { range in
      for head in range {
        for query in 0..<tokens {
          let row = out + (head * tokens + query) * across
          for key in 0..<tokens {
            row[key] = table[shape.relativePosition(query, key) * shape.heads + head]
          }
          for key in tokens..<across { row[key] = -.infinity }
        }
      }
    }
  }

  /// Scratch memory, places of tokens and sums of rows for one thread.
  static func withWorkspace(
    _ shape: WindowGeometry,
    _ body: (WindowScratch, UnsafeMutablePointer<Int>, UnsafeMutablePointer<Float>) -> Void
  ) {
    withScratch(WindowScratch.size(shape)) { memory in
      withUnsafeTemporaryAllocation(of: Int.self, capacity: shape.tokens) { places in
        withUnsafeTemporaryAllocation(of: Float.self, capacity: shape.tokens) { inverses in
          body(WindowScratch(shape, memory), places.baseAddress!, inverses.baseAddress!)
        }
      }
    }
  }
}

extension WindowScratch {
  /// q, k and v of a head, and k across.
  @inline(__always)
  func gatherInputs(
    _ qkv: UnsafePointer<Float>, _ head: Int, _ places: UnsafePointer<Int>,
    _ filler: UnsafePointer<Float>?
  ) {
    let (stride, first) = (3 * shape.channels, head * shape.depth)
    let scale = 1 / Float(shape.depth).squareRoot()
    for (part, target) in [q, k, v].enumerated() {
      let offset = part * shape.channels + first
      gather(
        qkv + offset, stride: stride, places, filler: filler.map { $0 + offset },
        scale: part == 0 ? scale : 1, into: target)
    }
    transpose(k, keysAcross)
  }

  /// The sum of v by the scores, into the tokens' places.
  @inline(__always)
  func weigh(
    _ inverses: UnsafePointer<Float>, _ head: Int, _ places: UnsafePointer<Int>,
    _ output: UnsafeMutablePointer<Float>
  ) {
    let (depth, width, across) = (shape.depth, shape.vectorDepth, shape.vectorTokens)
    SmallProduct(
      rows: shape.tileRows, columns: width, inner: shape.tokens, aRow: across, aInner: 1,
      bRow: width, cRow: width)(scores, v, result)
    for token in 0..<shape.tokens where places[token] >= 0 {
      let row = result + token &* width
      let target = output + (places[token] &* shape.channels &+ head &* depth)
      let inverse = inverses[token]
      for d in 0..<depth { target[d] = row[d] * inverse }
    }
  }
}
