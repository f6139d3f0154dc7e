import KDSKernels
import Testing

@Suite struct ResizeTests {
  /// (height, width) to (height, width): enlarging, reducing, the same, to and from one cell.
  static let sizes = [
    (5, 7, 10, 14), (5, 7, 9, 3), (6, 4, 6, 4), (1, 1, 4, 5), (7, 5, 1, 1), (3, 11, 8, 20),
  ]
  static let layouts = [(3, 1), (8, 8), (5, 8), (16, 16), (21, 16)]

  @Test(arguments: layouts) func nearestAndBilinear(_ layout: (Int, Int)) {
    for (h, w, oh, ow) in Self.sizes {
      let map = MapGeometry(images: 2, channels: layout.0, height: h, width: w, block: layout.1)
      let out = MapGeometry(images: 2, channels: layout.0, height: oh, width: ow, block: layout.1)
      let planes = 2 * layout.0
      let x = randoms(planes * h * w, 1)
      let g = randoms(planes * oh * ow, 2)
      var y = [Float](repeating: .nan, count: out.size)
      var back = [Float](repeating: .nan, count: map.size)

      Kernels.nearestForward(blocked(x, map), map: map, outHeight: oh, outWidth: ow, output: &y)
      let nearest = Reference.nearest(
        x, planes: planes, height: h, width: w, outHeight: oh, outWidth: ow)
      #expect(unblocked(y, out) == nearest)
      Kernels.nearestBackward(
        gradOutput: blocked(g, out), map: map, outHeight: oh, outWidth: ow, gradInput: &back)
      #expect(adjoint(x, unblocked(back, map), nearest, g))
      #expect(paddingIsZero(back, map))

      Kernels.bilinearForward(blocked(x, map), map: map, outHeight: oh, outWidth: ow, output: &y)
      let bilinear = Reference.bilinear(
        x, planes: planes, height: h, width: w, outHeight: oh, outWidth: ow)
      #expect(error(unblocked(y, out), bilinear) < 1e-6)  // two blends of values below 1
      Kernels.bilinearBackward(
        gradOutput: blocked(g, out), map: map, outHeight: oh, outWidth: ow, gradInput: &back)
      #expect(adjoint(x, unblocked(back, map), bilinear, g))
      #expect(paddingIsZero(back, map))
    }
  }

  /// A linear map's backward pass is its transpose: <x, A^T g> = <A x, g>. Random x and g see every
  /// entry of A; the tolerance is that of sums of up to 9000 products of numbers below 1.
  func adjoint(_ x: [Float], _ back: [Float], _ y: [Float], _ g: [Float]) -> Bool {
    let left = zip(x, back).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
    let right = zip(y, g).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
    return abs(left - right) < 1e-4
  }

  @Test func imageIntoAPaddedSlot() {
    let (h, w, oh, ow, sh, sw) = (7, 5, 10, 8, 12, 9)
    let stride = 3 * w + 4
    var random = CounterRandom(seed: 1)
    let bytes = (0..<h * stride).map { _ in UInt8(random.below(256)) }
    var slot = [Float](repeating: .nan, count: 3 * sh * sw)
    let (mean, deviation) = (SIMD3<Float>(0.4, 0.5, 0.6), SIMD3<Float>(0.2, 0.25, 0.3))
    bytes.withUnsafeBufferPointer {
      Kernels.resizeImage(
        ImageSource(pixels: $0.baseAddress!, height: h, width: w, rowStride: stride),
        outHeight: oh, outWidth: ow, slot: &slot, slotHeight: sh, slotWidth: sw, mean: mean,
        deviation: deviation)
    }
    for channel in 0..<3 {
      let plane = (0..<h * w).map { Float(bytes[$0 / w * stride + $0 % w * 3 + channel]) }
      let resized = Reference.bilinear(
        plane, planes: 1, height: h, width: w, outHeight: oh, outWidth: ow)
      for y in 0..<sh {
        for x in 0..<sw {
          let value = slot[(channel * sh + y) * sw + x]
          let expected =
            y < oh && x < ow
            ? (resized[y * ow + x] / 255 - mean[channel]) / deviation[channel] : 0
          #expect(abs(value - expected) < 5e-6)
        }
      }
    }
    Kernels.resizeImage(
      ImageSource(pixels: bytes, height: 0, width: 5), outHeight: 3, outWidth: 3, slot: &slot,
      slotHeight: sh, slotWidth: sw, mean: mean, deviation: deviation)
    #expect(slot.allSatisfy { $0 == 0 })
  }
}
