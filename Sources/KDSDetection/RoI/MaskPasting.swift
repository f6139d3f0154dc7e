import KDSKernels
import KDSTensor

extension Detection {
  /// Draws the mask into the image: ones where its probability, resized to the box, is at least one half.
  ///
  /// The mask gets a border of zeros and the box grows with it, corners are cut to whole pixels, the
  /// last one counted in: torchvision's rule. A detection without a mask gives zeros.
  /// - Parameter target: (height, width) bytes of the original image.
  public func pasteMask(into target: UnsafeMutablePointer<UInt8>, height: Int, width: Int) {
    target.update(repeating: 0, count: height * width)
    let side = Int(Double(mask.count).squareRoot())
    // Written so that NaN is refused as well.
    let near = (0..<4).allSatisfy { abs(box[$0]) <= Float(1 << 20) }
    guard near, side > 0, side * side == mask.count else { return }
    let padded = side + 2
    let bordered = [Float](unsafeUninitializedCapacity: padded * padded) { values, count in
      values.update(repeating: 0)
      for row in 0..<side {
        for column in 0..<side {
          values[(row + 1) * padded + column + 1] = mask[row * side + column]
        }
      }
      count = padded * padded
    }
    let grown = Float(Double(padded) / Double(side))
    let (left, right) = grow(box[0], box[2], by: grown)
    let (top, bottom) = grow(box[1], box[3], by: grown)
    let size = Size2(max(1, bottom - top + 1), max(1, right - left + 1))
    var resized = [Float](repeating: 0, count: size.height * size.width)
    Kernels.bilinearForward(
      bordered, map: MapGeometry(images: 1, channels: 1, height: padded, width: padded),
      outHeight: size.height, outWidth: size.width, output: &resized)
    let rows = max(top, 0)..<max(max(top, 0), min(bottom + 1, height))
    let columns = max(left, 0)..<max(max(left, 0), min(right + 1, width))
    for y in rows where y - top < size.height {
      for x in columns where x - left < size.width {
        target[y * width + x] = resized[(y - top) * size.width + x - left] >= 0.5 ? 1 : 0
      }
    }
  }

  /// A side scaled about its middle, its ends cut towards zero.
  private func grow(_ low: Float, _ high: Float, by factor: Float) -> (Int, Int) {
    let (middle, half) = ((high + low) * 0.5, (high - low) * 0.5 * factor)
    return (Int(middle - half), Int(middle + half))
  }
}
