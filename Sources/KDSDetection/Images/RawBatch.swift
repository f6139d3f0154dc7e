import KDSKernels
import KDSTensor

/// One image as it came, and its boxes in its own pixels.
public struct RawImage {
  public enum Pixels {
    /// (H, W, C) bytes.
    case bytes([UInt8])
    /// (C, H, W) in [0, 1].
    case floats([Float])
  }
  public let pixels: Pixels
  public let channels, height, width: Int
  /// (M, 4) xyxy.
  public let boxes: [Float]
  /// (M), 1 … classes − 1.
  public let labels: [Int64]
  /// One mask per box, where there are any.
  public internal(set) var masks: ImageMasks?

  public init(
    pixels: Pixels, channels: Int, height: Int, width: Int, boxes: [Float] = [],
    labels: [Int64] = []
  ) {
    self.pixels = pixels
    self.channels = channels
    self.height = height
    self.width = width
    self.boxes = boxes
    self.labels = labels
  }
}

/// Images with their targets, before any model's resizing: teacher and student prepare the same one.
public final class RawBatch {
  public private(set) var images: [RawImage]
  public let hasTargets: Bool

  /// Checks everything that could hurt later; errors name image and box.
  public init(images: [RawImage], hasTargets: Bool) throws {
    guard !images.isEmpty else { throw KDSError.argument("batch: there is no image") }
    for (index, image) in images.enumerated() { try Self.check(image, index) }
    self.images = images
    self.hasTargets = hasTargets
  }

  /// Adds the masks of one image's objects, (M, height, width) bytes of its own pixels; not while the
  /// batch is in use.
  public func setMasks(_ bytes: [UInt8], image: Int) throws {
    guard images.indices.contains(image) else {
      throw KDSError.argument("masks: there is no image \(image) of \(images.count)")
    }
    let raw = images[image]
    let wanted = raw.labels.count * raw.height * raw.width
    guard bytes.count == wanted else {
      throw KDSError.shape(
        "targets[\(image)]: \(bytes.count) mask values for (M, H, W) = (\(raw.labels.count), "
          + "\(raw.height), \(raw.width))")
    }
    images[image].masks = try ImageMasks(bytes: bytes, height: raw.height, width: raw.width)
  }

  private static func check(_ image: RawImage, _ index: Int) throws {
    let (c, h, w) = (image.channels, image.height, image.width)
    guard c > 0, h > 0, w > 0, h <= 1 << 16, w <= 1 << 16, c <= 64 else {
      throw KDSError.shape("images[\(index)]: (C, H, W) = (\(c), \(h), \(w)) is not an image")
    }
    let count: Int
    switch image.pixels {
    case .bytes(let values): count = values.count
    case .floats(let values): count = values.count
    }
    guard count == c * h * w else {
      throw KDSError.shape("images[\(index)]: \(count) values for (C, H, W) = (\(c), \(h), \(w))")
    }
    if case .floats(let values) = image.pixels {
      let broken = values.withUnsafeBufferPointer {
        Kernels.anyNonFinite($0.baseAddress!, values.count)
      }
      if broken {
        let place = values.firstIndex { !$0.isFinite } ?? 0
        throw KDSError.argument(
          "images[\(index)]: \(values[place]) at channel \(place / (h * w)), row \(place / w % h), "
            + "column \(place % w); pixels must be finite")
      }
    }
    guard image.boxes.count == 4 * image.labels.count else {
      throw KDSError.shape(
        "targets[\(index)]: \(image.boxes.count / 4) boxes but \(image.labels.count) labels")
    }
    for box in 0..<image.labels.count { try check(image, index, box) }
  }

  private static func check(_ image: RawImage, _ index: Int, _ box: Int) throws {
    let b = image.boxes[4 * box..<4 * box + 4]
    let (x1, y1, x2, y2) = (
      b[b.startIndex], b[b.startIndex + 1], b[b.startIndex + 2], b[b.startIndex + 3]
    )
    let place = "targets[\(index)]: box \(box) = (\(x1), \(y1), \(x2), \(y2))"
    guard x1.isFinite, y1.isFinite, x2.isFinite, y2.isFinite else {
      throw KDSError.argument("\(place) is not finite")
    }
    guard x2 > x1, y2 > y1 else {
      throw KDSError.argument("\(place) has no area (x1 < x2, y1 < y2)")
    }
    guard x1 >= 0, y1 >= 0, x2 <= Float(image.width), y2 <= Float(image.height) else {
      throw KDSError.argument(
        "\(place) is outside the image of \(image.width) x \(image.height) pixels")
    }
  }
}

/// A batch as one model sees it: resized, normalized, padded.
public struct PreparedBatch {
  /// (N, C, H, W), plain, zeros beyond each image.
  public let images: Tensor
  /// Height and width of each image inside the padding.
  public let sizes: [Size2]
  /// Per image: input pixels per original pixel, (vertical, horizontal).
  public let scales: [(y: Float, x: Float)]
  /// Boxes in input pixels, (M, 4) each.
  public let boxes: [[Float]]
  public let labels: [[Int64]]
  /// Masks in original pixels; nil, or no entry, for an image without.
  public var masks: [ImageMasks?] = []
  /// Height and width of the padded input.
  public var inputSize: Size2 { Size2(images.shape[2], images.shape[3]) }

  /// What the network saw, as tensors: "size" (2), the padded input's height and width; "sizes" (N, 2)
  /// of the images inside it; "scales" (N, 2), input pixels per original pixel, vertical first; "boxes"
  /// (M, 5), the image's number and xyxy in input pixels; "labels" (M).
  public func description() throws -> [(name: String, tensor: Tensor)] {
    var rows: [Float] = []
    for (image, list) in boxes.enumerated() {
      for box in 0..<list.count / 4 {
        rows.append(Float(image))
        rows += list[4 * box..<4 * box + 4]
      }
    }
    let classes = labels.flatMap { $0 }
    let pairs = sizes.flatMap { [Float($0.height), Float($0.width)] }
    return [
      ("size", try Tensor([Float(inputSize.height), Float(inputSize.width)], shape: [2])),
      ("sizes", try Tensor(pairs, shape: [sizes.count, 2])),
      ("scales", try Tensor(scales.flatMap { [$0.y, $0.x] }, shape: [scales.count, 2])),
      ("boxes", try Tensor(rows, shape: [rows.count / 5, 5])),
      ("labels", try Tensor(classes, shape: [classes.count])),
    ]
  }
}
