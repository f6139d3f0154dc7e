import KDSNN
import KDSTensor

/// A backbone (`body`) whose last map is brought to twice its size: a transposed 2×2 convolution at
/// stride 2, ReLU, a 3×3 convolution, ReLU.
///
/// Li, Jin, Yan 2017 (figure 2): a student that sees images of half the size has maps of its teacher's
/// size, ⌈pixels / stride⌉ cells. The map is called "neck.up".
public final class FinerBackbone: Module, FeatureSource {
  public let body: Backbone
  private let output: FeatureDescription

  public init(
    body: Backbone, _ neck: NeckConfiguration, _ initializer: Initializer
  ) throws {
    guard (1...1 << 14).contains(neck.channels) else {
      throw KDSError.argument("neck.channels: \(neck.channels) must be 1 to 16384")
    }
    let last = body.descriptions[body.descriptions.count - 1]
    guard last.stride % 2 == 0 else {
      throw KDSError.argument("neck: \"deconv\" cannot halve the stride \(last.stride)")
    }
    self.body = body
    output = FeatureDescription(
      name: "neck.up", channels: neck.channels, stride: last.stride / 2)
    super.init()
    child("body", body)
    let up = child("up", Module())
    up.child(
      "deconv",
      try ConvTranspose2d(last.channels, neck.channels, kernel: 2, stride: 2, initializer))
    up.child("conv", try Conv2d(neck.channels, neck.channels, kernel: 3, initializer))
  }

  public var pooledLevels: Int { 1 }
  public var tapDescriptions: [FeatureDescription] { body.tapDescriptions + [output] }
  public var levelDescriptions: [FeatureDescription] { [output] }

  public func levelSizes(_ input: Size2) -> [Size2] {
    body.mapSizes(input).suffix(1).map { Size2(2 * $0.height, 2 * $0.width) }
  }

  public func maps(_ images: Tensor) throws -> FeatureMaps {
    let taps = try body.maps(images).taps
    guard let up = childModule("up"), let last = taps.last else {
      throw KDSError.runtime("neck: the backbone gave no map")
    }
    // The last cells of a map whose input ends within them lie beyond it.
    func cells(_ pixels: Int) -> Int { (pixels + output.stride - 1) / output.stride }
    let doubled = try up.layer("deconv")(last.tensor)
    let size = Size2(
      min(doubled.shape[2], cells(images.shape[2])), min(doubled.shape[3], cells(images.shape[3])))
    let fine = try doubled.cropped(size).relu()
    let level = Feature(
      name: output.name, tensor: try up.layer("conv")(fine).relu(), stride: output.stride)
    return try FeatureMaps(taps: taps + [level], levels: [level]).quantized(body.quantizers)
  }
}
