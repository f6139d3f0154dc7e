import KDSTensor
import KDSTestSupport
import Testing

@testable import KDSDetection

@Suite struct ImagePreparationTests {
  static let images: [(name: String, size: Size2, resized: Size2)] = [
    ("up", Size2(13, 17), Size2(24, 31)), ("down", Size2(31, 45), Size2(24, 35)),
    ("long", Size2(16, 61), Size2(10, 40)), ("same", Size2(24, 30), Size2(24, 30)),
  ]

  private func preparation(
    _ change: (inout FasterRCNNConfiguration) -> Void = { _ in }
  ) -> ImagePreparation {
    var configuration = FasterRCNNConfiguration()
    configuration.image_min = 24
    configuration.image_max = 40
    configuration.size_divisor = 8
    change(&configuration)
    return ImagePreparation(configuration)
  }

  private func pixels(_ name: String) throws -> [UInt8] {
    try Fixture("detection").integers("image_\(name)/pixels").map { UInt8($0) }
  }

  private func raw(_ index: Int, floats: Bool = false) throws -> RawImage {
    let (name, size, _) = Self.images[index]
    let bytes = try pixels(name)
    let area = size.height * size.width
    let planes = (0..<3 * area).map { Float(bytes[$0 % area * 3 + $0 / area]) / 255 }
    let (w, h) = (Float(size.width), Float(size.height))
    return RawImage(
      pixels: floats ? .floats(planes) : .bytes(bytes), channels: 3, height: size.height,
      width: size.width, boxes: [0, 0, w, h, 1, 2, 7, 10], labels: [1, 2])
  }

  /// Pixel values of image `index` inside the padded slot, and the rest.
  private func split(
    _ batch: PreparedBatch, _ index: Int
  ) throws -> (inside: [Float], outside: [Float]) {
    let (height, width) = (batch.images.shape[2], batch.images.shape[3])
    let all = try batch.images.values()
    var (inside, outside): ([Float], [Float]) = ([], [])
    for channel in 0..<3 {
      for row in 0..<height {
        for column in 0..<width {
          let value = all[((index * 3 + channel) * height + row) * width + column]
          if row < batch.sizes[index].height && column < batch.sizes[index].width {
            inside.append(value)
          } else {
            outside.append(value)
          }
        }
      }
    }
    return (inside, outside)
  }

  @Test(arguments: [false, true])
  func imagesEqualInterpolateAndNormalize(floats: Bool) throws {
    let raws = try Self.images.indices.map { try raw($0, floats: floats) }
    let batch = try preparation().prepare(RawBatch(images: raws, hasTargets: true))
    // The largest is 24 x 40, multiples of 8 already.
    #expect(batch.images.shape == [4, 3, 24, 40])
    for (index, image) in Self.images.enumerated() {
      #expect(batch.sizes[index] == image.resized)
      let (inside, outside) = try split(batch, index)
      let wanted = try Fixture("detection").floats("image_\(image.name)/result")
      #expect(inside.count == wanted.count)
      // Values up to 2.7; bytes are blended before they are normalized, floats after.
      for (a, b) in zip(inside, wanted) { #expect(abs(a - b) < 1e-5) }
      #expect(outside.allSatisfy { $0 == 0 })
    }
  }

  @Test func boxesAndScalesFollowTheImage() throws {
    for index in Self.images.indices {
      let batch = try preparation().prepare(RawBatch(images: [raw(index)], hasTargets: true))
      let (size, resized) = (Self.images[index].size, Self.images[index].resized)
      let y = Float(resized.height) / Float(size.height)
      let x = Float(resized.width) / Float(size.width)
      #expect(batch.scales[0].y == y && batch.scales[0].x == x)
      let wanted = [0, 0, Float(resized.width), Float(resized.height), x, 2 * y, 7 * x, 10 * y]
      for (a, b) in zip(batch.boxes[0], wanted) { #expect(abs(a - b) < 1e-5) }
      #expect(batch.labels == [[1, 2]])
    }
  }

  @Test func paddingIsAMultipleOfTheDivisor() throws {
    let raws = [try raw(1)]
    for (divisor, width) in [(1, 35), (8, 40), (32, 64)] {
      let batch = try preparation { $0.size_divisor = divisor }.prepare(
        RawBatch(images: raws, hasTargets: true))
      #expect(batch.images.shape[3] == width && batch.images.shape[2] % divisor == 0)
    }
  }

  @Test func extremeShapesKeepAtLeastOnePixel() {
    let preparation = preparation()
    #expect(preparation.resized(Size2(1, 60_000)) == Size2(1, 40))
    #expect(preparation.resized(Size2(1, 1)) == Size2(24, 24))
    #expect(preparation.resized(Size2(60_000, 60_000)) == Size2(24, 24))
    #expect(preparation.resized(Size2(39, 40)) == Size2(24, 25))
  }

  /// One or four channels take the way for any number of them; bytes and floats agree.
  @Test(arguments: [1, 4])
  func otherChannelCounts(channels: Int) throws {
    let preparation = preparation {
      $0.backbone.in_channels = channels
      $0.image_mean = [Float](repeating: 0.5, count: channels)
      $0.image_std = (0..<channels).map { 0.25 * Float($0 + 1) }
    }
    let bytes = (0..<12 * 16 * channels).map { UInt8($0 * 37 % 256) }
    let planes = (0..<bytes.count).map { Float(bytes[$0 % 192 * channels + $0 / 192]) / 255 }
    let results = try [RawImage.Pixels.bytes(bytes), .floats(planes)].map { pixels in
      let image = RawImage(pixels: pixels, channels: channels, height: 12, width: 16)
      return try preparation.prepare(RawBatch(images: [image], hasTargets: false)).images.values()
    }
    #expect(results[0] == results[1])
    // The corner of a doubled image is the corner pixel.
    for channel in 0..<channels {
      let corner = (planes[channel * 192] - 0.5) / (0.25 * Float(channel + 1))
      #expect(abs(results[0][channel * 24 * 32] - corner) < 1e-6)
    }
  }

  @Test func imagesThatDoNotFitAreRefused() throws {
    let gray = RawImage(
      pixels: .bytes([UInt8](repeating: 0, count: 16)), channels: 1, height: 4, width: 4)
    let error = #expect(throws: KDSError.self) {
      try preparation().prepare(RawBatch(images: [raw(0), gray], hasTargets: false))
    }
    #expect("\(error!)".contains("images[1]") && "\(error!)".contains("3"))
  }

  @Test(arguments: [
    ([5, 5, 5, 9], [1], "no area"), ([0, 0, 11, 9], [1], "outside"),
    ([-1, 0, 4, 4], [1], "outside"), ([0, 0, .nan, 4], [1], "finite"),
    ([0, 0, 4, 4], [1, 2], "1 boxes but 2 labels"), ([4, 4, 2, 2], [1], "no area"),
  ])
  func boxesThatCannotBeAreNamed(boxes: [Float], labels: [Int64], part: String) throws {
    let image = RawImage(
      pixels: .bytes([UInt8](repeating: 0, count: 300)), channels: 3, height: 10, width: 10,
      boxes: boxes, labels: labels)
    let error = #expect(throws: KDSError.self) { try RawBatch(images: [image], hasTargets: true) }
    #expect("\(error!)".contains("targets[0]") && "\(error!)".contains(part))
  }

  @Test func pixelsThatCannotBeAreNamed() throws {
    var values = [Float](repeating: 0.5, count: 3 * 4 * 5)
    values[1 * 20 + 2 * 5 + 3] = .nan
    let broken = RawImage(pixels: .floats(values), channels: 3, height: 4, width: 5)
    let error = #expect(throws: KDSError.self) { try RawBatch(images: [broken], hasTargets: false) }
    #expect("\(error!)".contains("channel 1, row 2, column 3"))
    let short = RawImage(pixels: .floats([1, 2]), channels: 3, height: 4, width: 5)
    let few = RawImage(pixels: .bytes([1, 2]), channels: 3, height: 4, width: 5)
    let flat = RawImage(pixels: .floats([]), channels: 3, height: 0, width: 5)
    for image in [short, few, flat] {
      #expect(throws: KDSError.self) { try RawBatch(images: [image], hasTargets: false) }
    }
    #expect(throws: KDSError.self) { try RawBatch(images: [], hasTargets: false) }
  }
}
