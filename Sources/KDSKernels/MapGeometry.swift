/// Sizes of a feature map and its memory layout.
///
/// `block` = 1 is plain NCHW. `block` = 8 or 16 is blocked, (N, ceil(C / block), H, W, block): the
/// channels of a block lie together and the missing channels of the last block are zero.
public struct MapGeometry {
  public let images, channels, height, width, block: Int

  public init(images: Int, channels: Int, height: Int, width: Int, block: Int = 1) {
    self.images = images
    self.channels = channels
    self.height = height
    self.width = width
    self.block = block
  }

  /// Channel blocks of an image.
  public var groups: Int { (channels + block - 1) / block }
  /// Floats of one channel block.
  public var plane: Int { height * width * block }
  /// Floats of the whole map, padding included.
  public var size: Int { images * groups * plane }

  func with(block: Int) -> MapGeometry {
    MapGeometry(images: images, channels: channels, height: height, width: width, block: block)
  }
}

/// Calls `body` with a 64-byte-aligned scratch buffer of `count` floats, uninitialised.
func withScratch<T>(_ count: Int, _ body: (UnsafeMutablePointer<Float>) -> T) -> T {
  let raw = UnsafeMutableRawPointer.allocate(byteCount: max(count, 1) * 4, alignment: 64)
  defer { raw.deallocate() }
  return body(raw.bindMemory(to: Float.self, capacity: count))
}
