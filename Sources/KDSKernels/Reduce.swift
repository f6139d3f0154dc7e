/// A reduction over some axes of a contiguous array, with neighbouring axes of one kind merged.
///
/// Results do not depend on the number of threads: work is split over outputs, and a full reduction
/// uses fixed chunks.
public struct ReducePlan {
  /// Merged sizes, outermost first.
  let sizes: [Int]
  /// Whether each merged axis is summed over; the flags alternate.
  let reduced: [Bool]

  public init(shape: [Int], reducing mask: [Bool]) {
    var (sizes, reduced): ([Int], [Bool]) = ([], [])
    for axis in shape.indices where shape[axis] != 1 {
      if reduced.last == mask[axis] {
        sizes[sizes.count - 1] *= shape[axis]
      } else {
        sizes.append(shape[axis])
        reduced.append(mask[axis])
      }
    }
    (self.sizes, self.reduced) = (sizes, reduced)
  }

  /// Offsets of every combination of the axes of one kind, the given axis excluded.
  fileprivate func offsets(reducing kind: Bool, excluding last: Int) -> [Int] {
    let strides = LoopNest.contiguous(sizes)
    var offsets = [0]
    for axis in sizes.indices where reduced[axis] == kind && axis != last {
      offsets = offsets.flatMap { base in (0..<sizes[axis]).map { base + $0 * strides[axis] } }
    }
    return offsets
  }
}

extension Kernels {
  /// out = scale * sum of x over the reduced axes of `plan`; out is contiguous over the kept ones.
  public static func reduceSum(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ plan: ReducePlan,
    scale: Double = 1
  ) {
    guard let lastReduced = plan.reduced.last else {
      out[0] = Float(Double(x[0]) * scale)
      return
    }
    if plan.reduced == [true] {
      out[0] = Float(total(x, plan.sizes[0]) * scale)
    } else if lastReduced {
      sumRuns(x, out, plan, scale)
    } else {
      sumColumns(x, out, plan, scale)
    }
  }

  /// Sum of `count` floats in double precision over fixed chunks.
  public static func total(_ x: UnsafePointer<Float>, _ count: Int) -> Double {
    reduceChunks(count: count) { runSum(x + $0.lowerBound, $0.count) }
  }

  /// The innermost axis is summed: one dot-like run per combination of the outer summed axes.
  private static func sumRuns(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ plan: ReducePlan,
    _ scale: Double
  ) {
    let last = plan.sizes.count - 1
    let run = plan.sizes[last]
    let starts = plan.offsets(reducing: false, excluding: last)
    let outer = plan.offsets(reducing: true, excluding: last)
    let grain = max(1, elementwiseGrain / max(1, run * outer.count))
    starts.withUnsafeBufferPointer { starts in
      outer.withUnsafeBufferPointer { outer in
        parallelFor(count: starts.count, grain: grain) { range in
          for index in range {
            var total = 0.0
            for offset in outer { total += runSum(x + starts[index] + offset, run) }
            out[index] = Float(total * scale)
          }
        }
      }
    }
  }

  /// The innermost axis is kept: rows of it are added up, a strip of columns at a time.
  private static func sumColumns(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ plan: ReducePlan,
    _ scale: Double
  ) {
    let last = plan.sizes.count - 1
    let width = plan.sizes[last]
    let starts = plan.offsets(reducing: false, excluding: last)
    let rows = plan.offsets(reducing: true, excluding: last)
    let strip = 64
    let strips = (width + strip - 1) / strip
    let grain = max(1, elementwiseGrain / max(1, rows.count * min(width, strip)))
    starts.withUnsafeBufferPointer { starts in
      rows.withUnsafeBufferPointer { rows in
        parallelFor(count: starts.count * strips, grain: grain) { range in
          for index in range {
            let (start, first) = (index / strips, index % strips * strip)
            stripSum(
              x + starts[start] + first, rows, out + start * width + first,
              min(strip, width - first), scale)
          }
        }
      }
    }
  }

  /// out[c] = scale * sum over rows of x[row + c]; floats within 128 rows, doubles across.
  @inline(__always)
  private static func stripSum(
    _ x: UnsafePointer<Float>, _ rows: UnsafeBufferPointer<Int>, _ out: UnsafeMutablePointer<Float>,
    _ width: Int, _ scale: Double
  ) {
    withUnsafeTemporaryAllocation(of: Double.self, capacity: 64) { totals in
      let total = totals.baseAddress!
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 64) { partials in
        let partial = partials.baseAddress!
        for column in 0..<width { total[column] = 0 }
        var first = 0
        while first < rows.count {
          for column in 0..<width { partial[column] = 0 }
          for row in first..<min(first + 128, rows.count) {
            let source = x + rows[row]
            for column in 0..<width { partial[column] += source[column] }
          }
          for column in 0..<width { total[column] += Double(partial[column]) }
          first += 128
        }
        for column in 0..<width { out[column] = Float(total[column] * scale) }
      }
    }
  }

  /// Sum of a run: 16 float lanes within 4096 elements, double across.
  @inline(__always)
  static func runSum(_ x: UnsafePointer<Float>, _ count: Int) -> Double {
    var total = 0.0
    var index = 0
    while index + 32 <= count {
      let end = min(index + 4096, count - count % 32)
      var first = SIMD16<Float>(repeating: 0)
      var second = SIMD16<Float>(repeating: 0)
      while index < end {
        let raw = UnsafeRawPointer(x + index)
        first += raw.loadUnaligned(as: SIMD16<Float>.self)
        second += raw.loadUnaligned(fromByteOffset: 64, as: SIMD16<Float>.self)
        index += 32
      }
      total += Double((first + second).sum())
    }
    while index < count {
      total += Double(x[index])
      index += 1
    }
    return total
  }

  /// Position of the largest (or smallest) of each row of (rows, columns), the first on ties; a NaN wins.
  public static func extremeIndex(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Int64>, rows: Int, columns: Int,
    largest: Bool
  ) {
    let sign: Float = largest ? 1 : -1
    parallelFor(count: rows, grain: max(1, elementwiseGrain / max(1, columns))) { range in
      for row in range {
        let source = x + row * columns
        var (best, place) = (sign * source[0], 0)
        for column in 1..<max(columns, 1) where best == best {
          let value = sign * source[column]
          if value > best || value != value { (best, place) = (value, column) }
        }
        out[row] = Int64(place)
      }
    }
  }
}
