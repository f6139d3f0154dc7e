/// A height and a width.
public struct Size2: Hashable, CustomStringConvertible {
  public var height, width: Int

  public init(_ height: Int, _ width: Int) {
    self.height = height
    self.width = width
  }

  /// The same length both ways.
  public init(_ side: Int) { self.init(side, side) }

  public var description: String { "\(height)x\(width)" }
}

/// Zeros (or, for max pooling, minus infinity) around a map, in pixels.
public struct Padding: Hashable, CustomStringConvertible {
  public var top, left, bottom, right: Int

  public init(top: Int, left: Int, bottom: Int, right: Int) {
    self.top = top
    self.left = left
    self.bottom = bottom
    self.right = right
  }

  /// The same on all sides.
  public init(_ amount: Int) { self.init(top: amount, left: amount, bottom: amount, right: amount) }

  public static let zero = Padding(0)

  public var description: String { "(\(top), \(left), \(bottom), \(right))" }
}

/// Output length of a sliding window: floor or ceil of (length + pads − extent) / stride, plus one.
///
/// Caffe and `ceil_mode=True` of PyTorch round up, and drop a last window that would start in the padding.
public func windowCount(
  _ length: Int, kernel: Int, stride: Int, before: Int, after: Int, dilation: Int = 1,
  roundUp: Bool = false
) -> Int {
  let extent = dilation * (kernel - 1) + 1
  let room = length + before + after - extent
  if room < 0 { return 0 }
  var count = (roundUp ? (room + stride - 1) / stride : room / stride) + 1
  if roundUp && (count - 1) * stride >= length + before { count -= 1 }
  return count
}
