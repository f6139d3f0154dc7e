import KDSKernels
import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// What the box numbers of a dense head mean.
public enum BoxCoding: Equatable {
  /// Faster R-CNN's code relative to the anchor, with these weights; see `Kernels.decodeBoxes`.
  case deltas(SIMD4<Float>)
  /// Distances from the anchor's centre to the sides (left, top, right, bottom) in anchor sizes
  /// (Tian et al. 2019, as torchvision normalizes them).
  case distances
  /// Logits of the distances 0, 1, …, bins - 1, in strides, for each side: the distance is the mean of
  /// their softmax (Li et al. 2020, eq. 4 and 5).
  case distribution(bins: Int)

  /// Numbers per anchor.
  public var columns: Int {
    guard case .distribution(let bins) = self else { return 4 }
    return 4 * bins
  }

  /// The name of the tap, and its kind.
  public var tap: String {
    guard case .distribution = self else { return "box_deltas" }
    return "box_distribution"
  }

  /// Boxes (P, 4), xyxy input pixels, on the tape.
  ///
  /// - Parameters:
  ///   - codes: (P, columns); anchors: 4·P numbers; strides: P numbers.
  func decoded(_ codes: Tensor, anchors: [Float], strides: [Float]) throws -> Tensor {
    let rows = codes.shape[0]
    switch self {
    case .deltas(let weights): return try codes.decodedBoxes(anchors: anchors, weights: weights)
    case .distances:
      let units = (0..<4 * rows).map { (index: Int) -> Float in
        let first = index / 4 * 4 + index % 2
        return anchors[first + 2] - anchors[first]
      }
      return try placed(codes, anchors, units)
    case .distribution(let bins):
      let values = try Tensor((0..<bins).map(Float.init), shape: [bins, 1])
      let means = try codes.reshaped([4 * rows, bins]).softmax().matmul(values)
      return try placed(means.reshaped([rows, 4]), anchors, (0..<4 * rows).map { strides[$0 / 4] })
    }
  }

  /// centre ∓ distance · unit
  private func placed(
    _ distances: Tensor, _ anchors: [Float], _ units: [Float]
  ) throws -> Tensor {
    let shape = distances.shape
    let signed = units.enumerated().map { $0.offset % 4 < 2 ? -$0.element : $0.element }
    let centres = units.indices.map { index in
      let first = index / 4 * 4 + index % 2
      return (anchors[first] + anchors[first + 2]) / 2
    }
    return try distances.multiplied(by: Tensor(signed, shape: shape))
      .adding(Tensor(centres, shape: shape))
  }
}

extension BoxCoding {
  /// The same for plain memory: boxes (count, 4) of codes (count, columns).
  func decode(
    _ codes: UnsafePointer<Float>, anchors: UnsafePointer<Float>, stride: Float,
    _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    if case .deltas(let weights) = self {
      Kernels.decodeBoxes(codes, anchors: anchors, out, count, weights: weights)
      return
    }
    for index in 0..<4 * count {
      let first = index / 4 * 4 + index % 2
      var (distance, unit) = (codes[index], anchors[first + 2] - anchors[first])
      if case .distribution(let bins) = self {
        (distance, unit) = (Self.mean(codes + index * bins, bins), stride)
      }
      let centre = (anchors[first] + anchors[first + 2]) / 2
      out[index] = index % 4 < 2 ? centre - distance * unit : centre + distance * unit
    }
  }

  /// Σ i softmax(logits)_i
  private static func mean(_ logits: UnsafePointer<Float>, _ bins: Int) -> Float {
    var peak = logits[0]
    for bin in 1..<bins { peak = max(peak, logits[bin]) }
    var (total, moment): (Float, Float) = (0, 0)
    for bin in 0..<bins {
      let share = exp(logits[bin] - peak)
      total += share
      moment += share * Float(bin)
    }
    return moment / total
  }
}
