extension Reference {
  /// Bilinear resize of (planes, height, width), half-pixel centres, from the definition.
  public static func bilinear(
    _ x: [Float], planes: Int, height: Int, width: Int, outHeight: Int, outWidth: Int
  ) -> [Float] {
    func neighbours(_ i: Int, _ from: Int, _ to: Int) -> (Int, Int, Double) {
      // The position is taken in single precision, as the kernels and PyTorch do.
      let position = max(Float(from) / Float(to) * (Float(i) + 0.5) - 0.5, 0)
      let low = min(Int(position), from - 1)
      return (low, min(low + 1, from - 1), Double(position) - Double(low))
    }
    var out: [Float] = []
    for plane in 0..<planes {
      func at(_ row: Int, _ column: Int) -> Double {
        Double(x[(plane * height + row) * width + column])
      }
      for oy in 0..<outHeight {
        let (top, bottom, fy) = neighbours(oy, height, outHeight)
        for ox in 0..<outWidth {
          let (left, right, fx) = neighbours(ox, width, outWidth)
          let upper = (1 - fx) * at(top, left) + fx * at(top, right)
          let lower = (1 - fx) * at(bottom, left) + fx * at(bottom, right)
          out.append(Float((1 - fy) * upper + fy * lower))
        }
      }
    }
    return out
  }

  /// Nearest-neighbour resize of (planes, height, width): floor(i * from / to).
  public static func nearest(
    _ x: [Float], planes: Int, height: Int, width: Int, outHeight: Int, outWidth: Int
  ) -> [Float] {
    var out: [Float] = []
    for plane in 0..<planes {
      for oy in 0..<outHeight {
        for ox in 0..<outWidth {
          let row = min(Int(Float(oy) * (Float(height) / Float(outHeight))), height - 1)
          let column = min(Int(Float(ox) * (Float(width) / Float(outWidth))), width - 1)
          out.append(x[(plane * height + row) * width + column])
        }
      }
    }
    return out
  }
}
