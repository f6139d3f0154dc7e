/// How a map of tokens (N, H, W, channels) is cut into square windows, shifted or not, as in Liu et al. 2021.
///
/// The map is padded at the bottom and on the right to whole windows, moved up and left by `shift` in a
/// circle, and cut. Where a side has one window only, it is not moved.
public struct WindowGeometry {
  public let images, height, width, channels, heads, window: Int
  /// Windows of a column and of a row.
  public let rows, columns: Int
  /// The shift of each side after the rule of the single window.
  public let shiftY, shiftX: Int

  /// - Precondition: `heads` divides `channels`, 0 <= shift < window, all sizes positive or zero.
  public init(
    images: Int, height: Int, width: Int, channels: Int, heads: Int, window: Int, shift: Int
  ) {
    (self.images, self.height, self.width) = (images, height, width)
    (self.channels, self.heads, self.window) = (channels, heads, window)
    rows = (height + window - 1) / window
    columns = (width + window - 1) / window
    shiftY = rows > 1 ? shift : 0
    shiftX = columns > 1 ? shift : 0
  }

  /// Tokens of a window.
  public var tokens: Int { window * window }
  /// Channels of a head.
  public var depth: Int { channels / heads }
  /// Windows of all images.
  public var windows: Int { images * rows * columns }
  /// Whether some tokens of the windows are padding.
  public var isPadded: Bool { rows * window > height || columns * window > width }
  /// Multiply-adds of q·kᵀ and of the weighted sum of v, over all windows and heads.
  public var products: Int { 2 * windows * tokens * tokens * channels }

  /// Tokens rounded up to whole rows of tiles, and to whole vectors.
  var tileRows: Int { (tokens + 3) / 4 * 4 }
  var vectorTokens: Int { (tokens + 15) / 16 * 16 }
  var vectorDepth: Int { (depth + 15) / 16 * 16 }

  /// Writes where each token of a window lies among the rows of the map, -1 for padding.
  func places(window index: Int, _ out: UnsafeMutablePointer<Int>) {
    let (image, rest) = (index / (rows * columns), index % (rows * columns))
    let (top, left) = (rest / columns * window + shiftY, rest % columns * window + shiftX)
    var token = 0
    for i in 0..<window {
      let y = (top + i) % (rows * window)
      for j in 0..<window {
        let x = (left + j) % (columns * window)
        out[token] = y < height && x < width ? (image * height + y) * width + x : -1
        token += 1
      }
    }
  }

  /// Writes the region of each token: those that the circle brought together from opposite sides of
  /// the map have unlike regions and do not see one another. False where all are alike.
  func regions(window index: Int, _ out: UnsafeMutablePointer<Float>) -> Bool {
    let rest = index % (rows * columns)
    let last = (rest / columns == rows - 1, rest % columns == columns - 1)
    let cutY = last.0 && shiftY > 0 ? window - shiftY : window
    let cutX = last.1 && shiftX > 0 ? window - shiftX : window
    if cutY == window && cutX == window { return false }
    for token in 0..<tokens {
      out[token] = (token / window >= cutY ? 2 : 0) + (token % window >= cutX ? 1 : 0)
    }
    return true
  }

  /// The row of the table of biases for two tokens of a window: by how far they are apart.
  public func relativePosition(_ query: Int, _ key: Int) -> Int {
    let (dy, dx) = (query / window - key / window, query % window - key % window)
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1
  }
}
