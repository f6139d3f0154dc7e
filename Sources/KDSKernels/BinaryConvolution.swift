import CBits

/// Filters as `Kernels.packFilters` leaves them, and what their sums are multiplied by.
public struct BinaryFilters {
  public let bits: UnsafePointer<UInt64>
  public let sums: UnsafePointer<Int32>
  /// α, and what is added behind: a number per filter, with room (zeros) for whole blocks of 16.
  public let scale, bias: UnsafePointer<Float>

  public init(
    bits: UnsafePointer<UInt64>, sums: UnsafePointer<Int32>, scale: UnsafePointer<Float>,
    bias: UnsafePointer<Float>
  ) {
    (self.bits, self.sums, self.scale, self.bias) = (bits, sums, scale, bias)
  }
}

extension Kernels {
  /// Convolution of signs with signs by exclusive or and counts of bits (Rastegari et al. 2016, eq 11):
  ///
  ///     out = α · K · (sign(I) ⊛ sign(W)) + bias,   a · b = n − 2 · popcount(a ⊕ b)
  ///
  /// Padding adds nothing, as zeros do in a convolution of floats: its bits count as +1 first, and pixels
  /// at the border take the sums of the taps outside off again. The numbers before α are exact.
  ///
  /// - Parameters:
  ///   - bits: from `packSigns`.
  ///   - map: K, one number per output pixel (images, H', W'); nil for 1.
  ///   - block: channel block of `out`, 1 for plain; missing channels become zero.
  public static func binaryConvolution(
    _ bits: UnsafePointer<UInt64>, _ filters: BinaryFilters, map: UnsafePointer<Float>? = nil,
    relu: Bool = false, _ geometry: BinaryGeometry, _ out: UnsafeMutablePointer<Float>, block: Int
  ) {
    let pixels = geometry.outHeight * geometry.outWidth
    let chunks = (pixels + BinaryPass.chunk - 1) / BinaryPass.chunk
    let work = BinaryPass.chunk * geometry.taps * geometry.words
    let rounded = chunks * BinaryPass.chunk
    withUnsafeTemporaryAllocation(of: Int64.self, capacity: rounded + geometry.placeCount) { room in
      let (offsets, places) = (room.baseAddress!, room.baseAddress! + rounded)
      // What is missing of whole chunks is the last pixel again.
      for pixel in 0..<rounded { offsets[pixel] = geometry.offset(min(pixel, pixels - 1)) }
      geometry.fillPlaces(places)
      let pass = BinaryPass(
        geometry: geometry, bits: bits, filters: filters, map: map, floor: relu ? 0 : -.infinity,
        out: out, block: block, offsets: offsets, places: places)
      parallelFor(
        count: geometry.images * geometry.filterBlocks * chunks,
        grain: max(1, elementwiseGrain / work)
      ) { range in
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: 16 * BinaryPass.chunk) { sums in
          for item in range {
            let (panel, first) = (item / chunks, item % chunks * BinaryPass.chunk)
            pass.run(
              image: panel / geometry.filterBlocks, filterBlock: panel % geometry.filterBlocks,
              pixels: first..<min(pixels, first + BinaryPass.chunk), sums.baseAddress!)
          }
        }
      }
    }
  }
}

extension BinaryGeometry {
  /// Words that a window reads.
  fileprivate var placeCount: Int { taps * words }

  /// Where the window of an output pixel begins, in its image.
  fileprivate func offset(_ pixel: Int) -> Int64 {
    let (y, x) = (pixel / outWidth, pixel % outWidth)
    return Int64((y * stride.height * paddedWidth + x * stride.width) * words)
  }

  /// Where the words of a window lie behind its begin.
  fileprivate func fillPlaces(_ places: UnsafeMutablePointer<Int64>) {
    for tap in 0..<taps {
      let (y, x) = (tap / kernel.width * dilation.height, tap % kernel.width * dilation.width)
      for word in 0..<words {
        places[tap * words + word] = Int64((y * paddedWidth + x) * words + word)
      }
    }
  }

  /// Whether the window of an output pixel lies inside the image.
  fileprivate func isInside(top: Int, left: Int) -> Bool {
    top >= 0 && left >= 0 && top + dilation.height * (kernel.height - 1) < height
      && left + dilation.width * (kernel.width - 1) < width
  }
}

/// One convolution: sixteen filters and a chunk of pixels at a time.
private struct BinaryPass {
  /// Output pixels of a piece of work.
  static let chunk = 64
  private static let hasVectorCount = kds_has_vector_popcount() != 0

  let geometry: BinaryGeometry
  let bits: UnsafePointer<UInt64>
  let filters: BinaryFilters
  let map: UnsafePointer<Float>?
  let floor: Float
  let out: UnsafeMutablePointer<Float>
  let block: Int
  let offsets, places: UnsafePointer<Int64>

  func run(
    image: Int, filterBlock: Int, pixels: Range<Int>, _ sums: UnsafeMutablePointer<Int32>
  ) {
    let source = bits + image * geometry.imageWords
    let own = filters.bits + filterBlock * geometry.placeCount * 16
    let (offsets, tiles) = (offsets + pixels.lowerBound, (pixels.count + 3) / 4)
    let length = geometry.channels * geometry.taps
    if Self.hasVectorCount {
      kds_xnor_tiles(
        source, offsets, Int64(tiles), places, Int64(geometry.placeCount), own, Int64(length), sums)
    } else {
      countBits(source, offsets, tiles, places, geometry.placeCount, own, length, sums)
    }
    takeOffPadding(filterBlock, pixels, sums)
    if block == 16 {
      let panel = image * geometry.filterBlocks + filterBlock
      let area = geometry.outHeight * geometry.outWidth
      finish(image, filterBlock, pixels, sums, out + (panel * area + pixels.lowerBound) * 16)
    } else {
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 16 * pixels.count) { results in
        finish(image, filterBlock, pixels, sums, results.baseAddress!)
        spread(image, filterBlock, pixels, results.baseAddress!)
      }
    }
  }

  /// α, K, bias and ReLU.
  private func finish(
    _ image: Int, _ filterBlock: Int, _ pixels: Range<Int>, _ sums: UnsafePointer<Int32>,
    _ to: UnsafeMutablePointer<Float>
  ) {
    let scale = load16(filters.scale + filterBlock * 16)
    let bias = load16(filters.bias + filterBlock * 16)
    let least = SIMD16<Float>(repeating: floor)
    let first = image * geometry.outHeight * geometry.outWidth + pixels.lowerBound
    let raw = UnsafeRawPointer(sums)
    for pixel in 0..<pixels.count {
      let whole = raw.loadUnaligned(fromByteOffset: pixel &* 64, as: SIMD16<UInt32>.self)
      // 1.5 · 2²³ plus a whole number below 2²² has that number as its last bits.
      let shifted = unsafeBitCast(
        whole &+ SIMD16(repeating: 0x4B40_0000), to: SIMD16<Float>.self)
      var value = (shifted - SIMD16(repeating: 12_582_912)) * scale
      if let map { value *= SIMD16(repeating: map[first &+ pixel]) }
      value += bias
      value.replace(with: least, where: value .< least)
      store16(value, to + pixel &* 16)
    }
  }

  /// Sixteen filters of each pixel to where other layouts have them.
  private func spread(
    _ image: Int, _ filterBlock: Int, _ pixels: Range<Int>, _ results: UnsafePointer<Float>
  ) {
    let area = geometry.outHeight * geometry.outWidth
    let groups = (geometry.filters + block - 1) / block
    for lanes in stride(from: 0, to: min(16, geometry.filters - filterBlock * 16), by: block) {
      let group = image * groups + (filterBlock * 16 + lanes) / block
      let to = out + (group * area + pixels.lowerBound) * block
      for pixel in 0..<pixels.count {
        for lane in 0..<block {
          to[pixel &* block &+ lane] = results[pixel &* 16 &+ lanes &+ lane]
        }
      }
    }
  }

  private func takeOffPadding(
    _ filterBlock: Int, _ pixels: Range<Int>, _ sums: UnsafeMutablePointer<Int32>
  ) {
    let (kernel, dilation) = (geometry.kernel, geometry.dilation)
    let own = filters.sums + filterBlock * geometry.taps * 16
    var (y, x) = (pixels.lowerBound / geometry.outWidth, pixels.lowerBound % geometry.outWidth)
    for pixel in 0..<pixels.count {
      let top = y * geometry.stride.height - geometry.padding.top
      let left = x * geometry.stride.width - geometry.padding.left
      x += 1
      if x == geometry.outWidth { (y, x) = (y + 1, 0) }
      if geometry.isInside(top: top, left: left) { continue }
      let target = sums + pixel * 16
      for tap in 0..<geometry.taps {
        let row = top + tap / kernel.width * dilation.height
        let column = left + tap % kernel.width * dilation.width
        if row >= 0, row < geometry.height, column >= 0, column < geometry.width { continue }
        for lane in 0..<16 { target[lane] &-= own[tap &* 16 &+ lane] }
      }
    }
  }
}

/// `kds_xnor_tiles` without its instruction: eight filters in a vector.
package func countBits(
  _ source: UnsafePointer<UInt64>, _ offsets: UnsafePointer<Int64>, _ tiles: Int,
  _ places: UnsafePointer<Int64>, _ placeCount: Int, _ filters: UnsafePointer<UInt64>,
  _ length: Int, _ sums: UnsafeMutablePointer<Int32>
) {
  for pixel in 0..<4 * tiles {
    var (low, high) = (SIMD8<UInt64>.zero, SIMD8<UInt64>.zero)
    let first = source + Int(offsets[pixel])
    var own = UnsafeRawPointer(filters)
    for place in 0..<placeCount {
      let bits = SIMD8<UInt64>(repeating: first[Int(places[place])])
      low &+= (own.loadUnaligned(as: SIMD8<UInt64>.self) ^ bits).nonzeroBitCount
      high &+=
        (own.loadUnaligned(fromByteOffset: 64, as: SIMD8<UInt64>.self) ^ bits)
        .nonzeroBitCount
      own += 128
    }
    for lane in 0..<8 {
      sums[pixel * 16 + lane] = Int32(length - 2 * Int(low[lane]))
      sums[pixel * 16 + 8 + lane] = Int32(length - 2 * Int(high[lane]))
    }
  }
}
