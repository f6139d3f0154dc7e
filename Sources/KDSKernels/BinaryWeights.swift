/// Which gradient the real-valued weights behind binary ones get.
public enum BinaryGradient: String, CaseIterable {
  /// dC/dW = dC/dW̃ · (1/n + α · 1{|W| ≤ 1}): the paper's section 3.2.
  case paper
  /// dC/dW = dC/dW̃ · (α · 1{|W| < 1} + 1/n) · (1 − 1/c): the authors' code, c input channels, without
  /// its further factor (n for SGD, 1e9 for Adam).
  case official
}

/// Sizes of filters (K, C, kh, kw).
public struct FilterGeometry {
  public let filters, channels, taps: Int
  /// Weights of a filter: the paper's n.
  public var length: Int { channels * taps }

  public init(filters: Int, channels: Int, taps: Int) {
    (self.filters, self.channels, self.taps) = (filters, channels, taps)
  }

  /// Filters below which a second thread does not pay.
  var grain: Int { max(1, Kernels.elementwiseGrain / max(1, length)) }
}

extension Kernels {
  /// out = sign(x): −1 below 0, else +1; also for 0, −0 and NaN.
  public static func signs(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      let lower = range.lowerBound
      mapElements(x + lower, out + lower, range.count) { $0 < 0 ? -1 : 1 }
    }
  }

  /// Straight-through estimator of a sign: out = g where |x| ≤ 1 (`strict`: < 1), else 0.
  public static func signsGradient(
    _ x: UnsafePointer<Float>, _ g: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    _ count: Int, strict: Bool
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      let (x, g, out) = (x + range.lowerBound, g + range.lowerBound, out + range.lowerBound)
      if strict {
        zipElements(x, g, out, range.count) { abs($0) < 1 ? $1 : 0 }
      } else {
        zipElements(x, g, out, range.count) { abs($0) <= 1 ? $1 : 0 }
      }
    }
  }

  /// k-bit numbers (Rastegari et al. 2016, section 3.2), x limited to [−1, 1], ties up:
  ///
  ///     q_k(x) = 2 (round((2ᵏ − 1)(x + 1) / 2) / (2ᵏ − 1) − 1/2)
  public static func quantizeBits(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int, bits: Int
  ) {
    let levels = Float((1 << bits) - 1)
    parallelFor(count: count, grain: elementwiseGrain) { range in
      let lower = range.lowerBound
      mapElements(x + lower, out + lower, range.count) { value in
        let raised: Float = value < -1 ? -1 : value
        let inside: Float = raised > 1 ? 1 : raised
        let level = (levels * (inside + 1) / 2 + 0.5).rounded(.down)
        return 2 * (level / levels) - 1
      }
    }
  }

  /// α of every filter, equation 6: the mean of |W|.
  public static func filterScales(
    _ weight: UnsafePointer<Float>, _ geometry: FilterGeometry,
    _ scales: UnsafeMutablePointer<Float>
  ) {
    parallelFor(count: geometry.filters, grain: geometry.grain) { range in
      for filter in range {
        let values = weight + filter * geometry.length
        var sum = 0.0
        for index in 0..<geometry.length { sum += Double(abs(values[index])) }
        scales[filter] = Float(sum / Double(geometry.length))
      }
    }
  }

  /// out = α · sign(W), filter by filter.
  public static func binaryFilters(
    _ weight: UnsafePointer<Float>, scales: UnsafePointer<Float>, _ geometry: FilterGeometry,
    _ out: UnsafeMutablePointer<Float>
  ) {
    parallelFor(count: geometry.filters, grain: geometry.grain) { range in
      for filter in range {
        let (first, scale) = (filter * geometry.length, scales[filter])
        mapElements(weight + first, out + first, geometry.length) { $0 < 0 ? -scale : scale }
      }
    }
  }

  /// The gradient behind `binaryFilters`, by the rule.
  public static func binaryFiltersGradient(
    _ weight: UnsafePointer<Float>, scales: UnsafePointer<Float>, _ g: UnsafePointer<Float>,
    _ geometry: FilterGeometry, _ rule: BinaryGradient, _ out: UnsafeMutablePointer<Float>
  ) {
    let mean = 1 / Float(geometry.length)
    let factor = rule == .paper ? 1 : 1 - 1 / Float(geometry.channels)
    parallelFor(count: geometry.filters, grain: geometry.grain) { range in
      for filter in range {
        let (first, scale) = (filter * geometry.length, scales[filter])
        let (w, g, out) = (weight + first, g + first, out + first)
        if rule == .paper {
          zipElements(w, g, out, geometry.length) { (abs($0) <= 1 ? scale + mean : mean) * $1 }
        } else {
          zipElements(w, g, out, geometry.length) {
            (abs($0) < 1 ? scale + mean : mean) * factor * $1
          }
        }
      }
    }
  }

  /// The authors' preparation before each step: every tap's mean over the input channels is taken off,
  /// then weights are limited to [−1, 1]. In place.
  public static func centerFilters(
    _ weight: UnsafeMutablePointer<Float>, _ geometry: FilterGeometry
  ) {
    let (channels, taps) = (geometry.channels, geometry.taps)
    parallelFor(count: geometry.filters, grain: geometry.grain) { range in
      for index in range.lowerBound * taps..<range.upperBound * taps {
        let first = weight + (index / taps * geometry.length + index % taps)
        var sum = 0.0
        for channel in 0..<channels { sum += Double(first[channel * taps]) }
        let mean = Float(sum / Double(channels))
        for channel in 0..<channels {
          first[channel * taps] = min(max(first[channel * taps] - mean, -1), 1)
        }
      }
    }
  }
}
