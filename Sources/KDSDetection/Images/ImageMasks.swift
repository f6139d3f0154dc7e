import KDSKernels
import KDSTensor

/// The masks of one image's objects, in its own pixels.
public struct ImageMasks {
  /// (M, height, width); 0 is outside, all else inside.
  public let bytes: [UInt8]
  public let height, width: Int

  /// - Throws: `KDSError.shape` when the bytes are not whole masks.
  public init(bytes: [UInt8], height: Int, width: Int) throws {
    guard height > 0, width > 0, bytes.count % (height * width) == 0 else {
      throw KDSError.shape("masks: \(bytes.count) bytes are not masks of \(height) x \(width)")
    }
    (self.bytes, self.height, self.width) = (bytes, height, width)
  }

  public var count: Int { bytes.count / (height * width) }

  /// One mask as ones and zeros, (1, 1, height, width), by nearest neighbours as in torchvision.
  func resized(_ index: Int, to size: Size2) throws -> Tensor {
    let area = height * width
    let plane = try Tensor(uninitialized: [1, 1, height, width])
    bytes.withUnsafeBufferPointer { bytes in
      let (from, to) = (bytes.baseAddress! + index * area, plane.floats)
      for pixel in 0..<area { to[pixel] = from[pixel] == 0 ? 0 : 1 }
    }
    if size == Size2(height, width) { return plane }
    let result = try Tensor(uninitialized: [1, 1, size.height, size.width])
    Kernels.nearestForward(
      plane.floats, map: MapGeometry(images: 1, channels: 1, height: height, width: width),
      outHeight: size.height, outWidth: size.width, output: result.floats)
    return result
  }
}
