import KDSKernels
import KDSTensor

/// Resizing, normalization and padding: images as they came to a network's input.
public struct ImagePreparation {
  let shortest, longest, divisor, channels: Int
  let mean, deviation: [Float]
  let roundsDown: Bool

  public init(_ configuration: some DetectorConfiguration) {
    shortest = configuration.image_min
    longest = configuration.image_max
    divisor = configuration.size_divisor
    channels = configuration.backbone.in_channels
    roundsDown = configuration.image_rounding == "floor"
    mean = configuration.image_mean
    deviation = configuration.image_std
  }

  /// Size after resizing: the shorter side becomes `image_min` unless the longer one would pass `image_max`.
  public func resized(_ size: Size2) -> Size2 {
    let (short, long) = (min(size.height, size.width), max(size.height, size.width))
    let scale = min(Double(shortest) / Double(short), Double(longest) / Double(long))
    func side(_ pixels: Int) -> Int {
      let exact = Double(pixels) * scale
      return max(1, Int(roundsDown ? exact.rounded(.down) : exact.rounded()))
    }
    return Size2(side(size.height), side(size.width))
  }

  /// (N, C, H, W): each image in the top left corner, zeros (the mean color) elsewhere.
  public func prepare(_ batch: RawBatch) throws -> PreparedBatch {
    for (index, image) in batch.images.enumerated() where image.channels != channels {
      throw KDSError.shape(
        "images[\(index)]: \(image.channels) channels, the model takes \(channels)")
    }
    let sizes = batch.images.map { resized(Size2($0.height, $0.width)) }
    let height = (sizes.map(\.height).max()! + divisor - 1) / divisor * divisor
    let width = (sizes.map(\.width).max()! + divisor - 1) / divisor * divisor
    let images = try Tensor(uninitialized: [batch.images.count, channels, height, width])
    for (index, image) in batch.images.enumerated() {
      fill(
        image, sizes[index], images.floats + index * channels * height * width,
        Size2(height, width))
    }
    let scales = zip(batch.images, sizes).map { image, size in
      (y: Float(size.height) / Float(image.height), x: Float(size.width) / Float(image.width))
    }
    let boxes = zip(batch.images, scales).map { image, scale in
      image.boxes.enumerated().map {
        $0.offset % 2 == 0 ? $0.element * scale.x : $0.element * scale.y
      }
    }
    return PreparedBatch(
      images: images, sizes: sizes, scales: scales, boxes: boxes,
      labels: batch.images.map(\.labels),
      masks: batch.images.map(\.masks))
  }

  private func fill(
    _ image: RawImage, _ size: Size2, _ slot: UnsafeMutablePointer<Float>, _ padded: Size2
  ) {
    switch image.pixels {
    case .bytes(let bytes) where channels == 3:
      bytes.withUnsafeBufferPointer {
        Kernels.resizeImage(
          ImageSource(pixels: $0.baseAddress!, height: image.height, width: image.width),
          outHeight: size.height, outWidth: size.width, slot: slot, slotHeight: padded.height,
          slotWidth: padded.width, mean: SIMD3(mean[0], mean[1], mean[2]),
          deviation: SIMD3(deviation[0], deviation[1], deviation[2]))
      }
    case .bytes(let bytes):
      fillPlanes(image, size, slot, padded) { channel, pixel in
        Float(bytes[pixel * channels + channel]) / 255
      }
    case .floats(let values):
      let area = image.height * image.width
      fillPlanes(image, size, slot, padded) { channel, pixel in values[channel * area + pixel] }
    }
  }

  /// Any number of channels, one plane at a time.
  private func fillPlanes(
    _ image: RawImage, _ size: Size2, _ slot: UnsafeMutablePointer<Float>, _ padded: Size2,
    _ value: (Int, Int) -> Float
  ) {
    let area = image.height * image.width
    var plane = [Float](repeating: 0, count: area)
    var resized = [Float](repeating: 0, count: size.height * size.width)
    for channel in 0..<channels {
      for pixel in 0..<area {
        plane[pixel] = (value(channel, pixel) - mean[channel]) / deviation[channel]
      }
      Kernels.bilinearForward(
        plane,
        map: MapGeometry(images: 1, channels: 1, height: image.height, width: image.width),
        outHeight: size.height, outWidth: size.width, output: &resized)
      let target = slot + channel * padded.height * padded.width
      target.update(repeating: 0, count: padded.height * padded.width)
      for row in 0..<size.height {
        for column in 0..<size.width {
          target[row * padded.width + column] = resized[row * size.width + column]
        }
      }
    }
  }
}
