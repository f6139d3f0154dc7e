import CBits

/// Sizes of a convolution of signs, and how its bits lie.
///
/// A bit is 1 for a negative number: 0, −0 and NaN count as +1 (Rastegari et al. 2016: sign(0) = +1). A
/// pixel has its channels side by side in words of 64 bits, the last one filled up with zeros; an image has
/// its padding around it, zeros too. Zero bits stand for +1, which padding is not: what they add is taken
/// off again at the border, see `Kernels.binaryConvolution`.
public struct BinaryGeometry {
  public let images, channels, height, width, filters: Int
  public let kernel, stride, dilation: (height: Int, width: Int)
  public let padding: (top: Int, left: Int, bottom: Int, right: Int)
  public let outHeight, outWidth: Int

  public init(
    images: Int, channels: Int, height: Int, width: Int, filters: Int,
    kernel: (height: Int, width: Int), stride: (height: Int, width: Int) = (1, 1),
    padding: (top: Int, left: Int, bottom: Int, right: Int) = (0, 0, 0, 0),
    dilation: (height: Int, width: Int) = (1, 1)
  ) {
    (self.images, self.channels, self.height, self.width) = (images, channels, height, width)
    (self.filters, self.kernel, self.stride) = (filters, kernel, stride)
    (self.padding, self.dilation) = (padding, dilation)
    let high = height + padding.top + padding.bottom - dilation.height * (kernel.height - 1) - 1
    let wide = width + padding.left + padding.right - dilation.width * (kernel.width - 1) - 1
    outHeight = high / stride.height + 1
    outWidth = wide / stride.width + 1
  }

  /// Words of a pixel.
  public var words: Int { (channels + 63) / 64 }
  public var taps: Int { kernel.height * kernel.width }
  public var paddedHeight: Int { height + padding.top + padding.bottom }
  public var paddedWidth: Int { width + padding.left + padding.right }
  /// Words of an image with its padding.
  public var imageWords: Int { paddedHeight * paddedWidth * words }
  /// Filters are packed sixteen by sixteen.
  public var filterBlocks: Int { (filters + 15) / 16 }
  /// Words of all filters: (block, tap, word, filter of the block).
  public var filterWords: Int { filterBlocks * taps * words * 16 }
}

extension Kernels {
  /// Signs of a map as bits, padding included.
  ///
  /// - Parameters:
  ///   - affine: x · scale + shift is taken before the sign, as by a normalization in front; both have
  ///     room for whole blocks of 16 channels.
  ///   - out: `images · imageWords` words.
  public static func packSigns(
    _ x: UnsafePointer<Float>, _ map: MapGeometry,
    affine: (scale: UnsafePointer<Float>, shift: UnsafePointer<Float>)? = nil,
    _ geometry: BinaryGeometry, _ out: UnsafeMutablePointer<UInt64>
  ) {
    let (rowWords, words) = (geometry.paddedWidth * geometry.words, geometry.words)
    let grain = max(1, elementwiseGrain / max(1, geometry.width * geometry.channels))
    parallelFor(count: geometry.images * geometry.paddedHeight, grain: grain) { range in
      for index in range {
        let (image, row) = (
          index / geometry.paddedHeight, index % geometry.paddedHeight - geometry.padding.top
        )
        let target = out + index * rowWords
        target.update(repeating: 0, count: rowWords)
        if row < 0 || row >= geometry.height { continue }
        let first = target + geometry.padding.left * words
        for word in 0..<words {
          let place = RowOfWord(map, image: image, row: row, word: word)
          if map.block == 16 {
            packWord16(x, affine, place, first + word, stride: words)
          } else {
            packWord(x, affine, place, first + word, stride: words)
          }
        }
      }
    }
  }

  /// 64 channels, or what is left of them, of a row of pixels.
  private struct RowOfWord {
    let map: MapGeometry
    let image, row, word: Int

    init(_ map: MapGeometry, image: Int, row: Int, word: Int) {
      (self.map, self.image, self.row, self.word) = (map, image, row, word)
    }

    var channels: Range<Int> { word * 64..<min(map.channels, word * 64 + 64) }

    /// Where a channel of the row's first pixel lies.
    func offset(_ channel: Int) -> Int {
      let plane = image * map.groups + channel / map.block
      return plane * map.plane + row * map.width * map.block + channel % map.block
    }
  }

  private static func packWord16(
    _ x: UnsafePointer<Float>,
    _ affine: (scale: UnsafePointer<Float>, shift: UnsafePointer<Float>)?, _ place: RowOfWord,
    _ out: UnsafeMutablePointer<UInt64>, stride: Int
  ) {
    let channels = place.channels
    for group in 0..<(channels.count + 15) / 16 {
      let first = channels.lowerBound + group * 16
      // Behind the last channel a shift could make a sign.
      let valid: UInt64 = (1 << UInt64(min(16, channels.upperBound - first))) - 1
      let (from, place16) = (x + place.offset(first), UInt64(group * 16))
      if let affine {
        let (scale, shift) = (affine.scale + first, affine.shift + first)
        for pixel in 0..<place.map.width {
          let bits = UInt64(kds_sign_bits16_affine(from + pixel &* 16, scale, shift)) & valid
          out[pixel &* stride] |= bits &<< place16
        }
      } else {
        for pixel in 0..<place.map.width {
          out[pixel &* stride] |= (UInt64(kds_sign_bits16(from + pixel &* 16)) & valid) &<< place16
        }
      }
    }
  }

  private static func packWord(
    _ x: UnsafePointer<Float>,
    _ affine: (scale: UnsafePointer<Float>, shift: UnsafePointer<Float>)?, _ place: RowOfWord,
    _ out: UnsafeMutablePointer<UInt64>, stride: Int
  ) {
    for channel in place.channels {
      let (from, bit) = (x + place.offset(channel), UInt64(channel % 64))
      let (scale, shift) = (affine?.scale[channel] ?? 1, affine?.shift[channel] ?? 0)
      for pixel in 0..<place.map.width {
        let value = from[pixel &* place.map.block] * scale + shift
        out[pixel &* stride] |= (value < 0 ? 1 : 0) &<< bit
      }
    }
  }

  /// Signs of filters (K, C, kh, kw) as bits, and what each tap of each filter sums to.
  ///
  /// - Parameters:
  ///   - out: `filterWords` words.
  ///   - sums: (block, tap, filter of the block), Σ over channels of sign(W).
  public static func packFilters(
    _ weight: UnsafePointer<Float>, _ geometry: BinaryGeometry,
    _ out: UnsafeMutablePointer<UInt64>, sums: UnsafeMutablePointer<Int32>
  ) {
    let (taps, words, channels) = (geometry.taps, geometry.words, geometry.channels)
    out.update(repeating: 0, count: geometry.filterWords)
    sums.update(repeating: 0, count: geometry.filterBlocks * taps * 16)
    parallelFor(count: geometry.filterBlocks, grain: max(1, elementwiseGrain / (taps * channels))) {
      for block in $0 {
        for lane in 0..<min(16, geometry.filters - block * 16) {
          let filter = weight + (block * 16 + lane) * channels * taps
          for tap in 0..<taps {
            let target = out + (block * taps + tap) * words * 16 + lane
            var negative = 0
            for channel in 0..<channels where filter[channel * taps + tap] < 0 {
              target[channel / 64 * 16] |= 1 << UInt64(channel % 64)
              negative += 1
            }
            sums[(block * taps + tap) * 16 + lane] = Int32(channels - 2 * negative)
          }
        }
      }
    }
  }
}
