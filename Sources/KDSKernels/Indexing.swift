extension Kernels {
  /// out[o, i, :] = x[o, index[i], :] for (outer, length, inner) arrays; indices are trusted.
  public static func takeSlices(
    _ x: UnsafePointer<Float>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Float>,
    outer: Int, length: Int, taken: Int, inner: Int
  ) { take(x, index, out, outer, length, taken, inner) }

  /// The same for integers.
  public static func takeSlices(
    _ x: UnsafePointer<Int64>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Int64>,
    outer: Int, length: Int, taken: Int, inner: Int
  ) { take(x, index, out, outer, length, taken, inner) }

  /// out[o, index[i], :] += x[o, i, :]; equal indices add up in order of i.
  public static func addSlices(
    _ x: UnsafePointer<Float>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Float>,
    outer: Int, length: Int, taken: Int, inner: Int
  ) {
    let strip = 1024
    let strips = (inner + strip - 1) / strip
    let grain = max(1, elementwiseGrain / max(1, taken * min(inner, strip)))
    parallelFor(count: outer * strips, grain: grain) { range in
      for place in range {
        let (block, first) = (place / strips, place % strips * strip)
        let count = min(strip, inner - first)
        for item in 0..<taken {
          let source = x + (block * taken + item) * inner + first
          let target = out + (block * length + Int(index[item])) * inner + first
          for i in 0..<count { target[i] += source[i] }
        }
      }
    }
  }

  /// out[i] = x[offset of i + index[i] * step], where the nest gives offsets with the indexed axis
  /// left out.
  public static func gatherElements(
    _ x: UnsafePointer<Float>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Float>,
    _ nest: LoopNest, step: Int
  ) { pick(x, index, out, nest, step) }

  /// The same for integers.
  public static func gatherElements(
    _ x: UnsafePointer<Int64>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Int64>,
    _ nest: LoopNest, step: Int
  ) { pick(x, index, out, nest, step) }

  /// out[offset of i + index[i] * step] += x[i]: the way back of `gatherElements`.
  public static func addElements(
    _ x: UnsafePointer<Float>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Float>,
    _ nest: LoopNest, step: Int
  ) {
    let (inner, stride) = (nest.inner, nest.strides[0].last!)
    for row in 0..<nest.rows {
      let target = out + nest.offset(0, row: row)
      let (places, source) = (index + row * inner, x + row * inner)
      for i in 0..<inner { target[i &* stride &+ Int(places[i]) &* step] += source[i] }
    }
  }
}

@inline(__always)
private func take<Element>(
  _ x: UnsafePointer<Element>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Element>,
  _ outer: Int, _ length: Int, _ taken: Int, _ inner: Int
) {
  let grain = max(1, Kernels.elementwiseGrain / max(1, inner))
  parallelFor(count: outer * taken, grain: grain) { range in
    for place in range {
      let (block, item) = (place / taken, place % taken)
      (out + place * inner).update(
        from: x + (block * length + Int(index[item])) * inner, count: inner)
    }
  }
}

@inline(__always)
private func pick<Element>(
  _ x: UnsafePointer<Element>, _ index: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Element>,
  _ nest: LoopNest, _ step: Int
) {
  let (inner, stride) = (nest.inner, nest.strides[0].last!)
  for row in 0..<nest.rows {
    let source = x + nest.offset(0, row: row)
    let (places, target) = (index + row * inner, out + row * inner)
    for i in 0..<inner { target[i] = source[i &* stride &+ Int(places[i]) &* step] }
  }
}
