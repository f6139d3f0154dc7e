extension Kernels {
  /// out[i] = x[offset of i]: reads operand 0 of the nest (any strides, 0 repeats), writes densely.
  public static func gatherStrided(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ nest: LoopNest
  ) {
    if let tiles = TransposeTiles(nest) {
      tiles.run(x, out)
    } else {
      gatherRows(x, out, nest)
    }
  }

  /// The same for integers.
  public static func gatherStrided(
    _ x: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Int64>, _ nest: LoopNest
  ) { gatherRows(x, out, nest) }

  /// out[offset of i] = x[i]: reads densely, writes operand 0 of the nest (no stride may be 0).
  public static func scatterStrided(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ nest: LoopNest
  ) { scatterRows(x, out, nest) }

  /// The same for integers.
  public static func scatterStrided(
    _ x: UnsafePointer<Int64>, _ out: UnsafeMutablePointer<Int64>, _ nest: LoopNest
  ) { scatterRows(x, out, nest) }
}

@inline(__always)
private func gatherRows<Element>(
  _ x: UnsafePointer<Element>, _ out: UnsafeMutablePointer<Element>, _ nest: LoopNest
) {
  let (inner, step) = (nest.inner, nest.strides[0].last!)
  let grain = max(1, Kernels.elementwiseGrain / max(inner, 1))
  parallelFor(count: nest.rows, grain: grain) { range in
    for row in range {
      let source = x + nest.offset(0, row: row)
      let target = out + row * inner
      if step == 1 {
        target.update(from: source, count: inner)
      } else if step == 0 {
        target.update(repeating: source[0], count: inner)
      } else {
        for index in 0..<inner { target[index] = source[index &* step] }
      }
    }
  }
}

@inline(__always)
private func scatterRows<Element>(
  _ x: UnsafePointer<Element>, _ out: UnsafeMutablePointer<Element>, _ nest: LoopNest
) {
  let (inner, step) = (nest.inner, nest.strides[0].last!)
  let grain = max(1, Kernels.elementwiseGrain / max(inner, 1))
  parallelFor(count: nest.rows, grain: grain) { range in
    for row in range {
      let target = out + nest.offset(0, row: row)
      let source = x + row * inner
      if step == 1 {
        target.update(from: source, count: inner)
      } else {
        for index in 0..<inner { target[index &* step] = source[index] }
      }
    }
  }
}

/// A copy whose inner loop strides while another loop is contiguous: walked in square tiles, so that
/// both sides stay in cache.
private struct TransposeTiles {
  private static let side = 32
  private let nest: LoopNest
  private let contiguousAxis: Int
  /// Offsets of the other loops, in the source and in the result.
  private let bases: [(source: Int, target: Int)]

  init?(_ nest: LoopNest) {
    let last = nest.sizes.count - 1
    let strides = nest.strides[0]
    guard strides[last] > 1, nest.inner > 1,
      let axis = strides.indices.dropLast().last(where: { strides[$0] == 1 })
    else { return nil }
    self.nest = nest
    contiguousAxis = axis
    let dense = LoopNest.contiguous(nest.sizes)
    var bases = [(source: 0, target: 0)]
    for other in nest.sizes.indices where other != last && other != axis {
      bases = bases.flatMap { base in
        (0..<nest.sizes[other]).map {
          (base.source + $0 * strides[other], base.target + $0 * dense[other])
        }
      }
    }
    self.bases = bases
  }

  func run(_ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>) {
    let (height, width) = (nest.sizes[contiguousAxis], nest.inner)
    let targetStep = LoopNest.contiguous(nest.sizes)[contiguousAxis]
    let sourceStep = nest.strides[0][nest.sizes.count - 1]
    let bands = (height + Self.side - 1) / Self.side
    let grain = max(1, Kernels.elementwiseGrain / max(1, width * Self.side))
    bases.withUnsafeBufferPointer { bases in
      parallelFor(count: bases.count * bands, grain: grain) { range in
        for index in range {
          let base = bases[index / bands]
          let top = index % bands * Self.side
          for left in stride(from: 0, to: width, by: Self.side) {
            for row in top..<min(top + Self.side, height) {
              let source = x + base.source + row
              let target = out + base.target + row * targetStep
              for column in left..<min(left + Self.side, width) {
                target[column] = source[column &* sourceStep]
              }
            }
          }
        }
      }
    }
  }
}
