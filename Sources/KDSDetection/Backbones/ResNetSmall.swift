import KDSNN
import KDSTensor

/// A small residual network that trains from scratch in minutes on small scenes (our own design).
///
/// A 3×3 stem at stride 2 and three layers of basic blocks with 64, 128 and 128 channels (times the
/// width). The last map has the stride asked for: layers beyond it run at stride 1, so a detector on
/// objects of 14 to 36 pixels keeps about 2 to 4 cells per object at stride 8.
/// Parameters: 0.96 M at width 1, 61 k at width 0.25.
final class ResNetSmall: Backbone {
  private static let channels = (stem: 32, layers: [64, 128, 128])
  private static let blocks = [2, 2, 1]

  private let stem: ConvNorm

  init(_ configuration: BackboneConfiguration, _ initializer: Initializer) throws {
    let norm = try Normalization(configuration.norm, of: configuration.name)
    let wanted = configuration.output_stride == 0 ? 8 : configuration.output_stride
    guard [4, 8, 16].contains(wanted) else {
      throw KDSError.argument(
        "\(configuration.name): output_stride \(wanted) is not 4, 8 or 16 (0 takes 8)")
    }
    let widths = Self.channels.layers.map { scaledChannels($0, by: configuration.width) }
    let strides = (1...widths.count).map { min(wanted, 2 << $0) }
    let style = ResidualStyle(
      norm: norm, epsilon: Float(configuration.norm_epsilon), depth: Self.blocks.reduce(0, +))
    stem = style.pair("conv1", "bn1")
    super.init(
      configuration: configuration,
      descriptions: zip(widths, strides).enumerated().map {
        FeatureDescription(name: "layer\($0 + 1)", channels: $1.0, stride: $1.1)
      })
    var channels = scaledChannels(Self.channels.stem, by: configuration.width)
    try register(
      stem, configuration.in_channels, channels, kernel: 3, stride: 2, style: style,
      activation: .relu, initializer)
    var stride = 2
    for (index, width) in widths.enumerated() {
      let layer = child("layer\(index + 1)", Sequential())
      for block in 0..<Self.blocks[index] {
        layer.append(
          try BasicBlock(
            channels, width, stride: block == 0 ? strides[index] / stride : 1, style: style,
            initializer))
        channels = width
      }
      stride = strides[index]
    }
  }

  override var headDefaults: RoIHeadDefaults {
    RoIHeadDefaults(
      poolSize: 5, hidden: [scaledChannels(256, by: configuration.width)], dropout: 0,
      rpnChannels: scaledChannels(128, by: configuration.width))
  }

  /// The stem, then each layer.
  override var stages: [[String]] { [["conv1", "bn1"]] + descriptions.map { [$0.name] } }

  override func mapSizes(_ input: Size2) -> [Size2] {
    descriptions.map { description in
      var size = input
      var stride = description.stride
      while stride > 1 {
        size = Size2((size.height + 1) / 2, (size.width + 1) / 2)
        stride /= 2
      }
      return size
    }
  }

  override func features(_ images: Tensor) throws -> [Feature] {
    try checkImages(images)
    var value = try stem(images, in: self)
    return try descriptions.map {
      value = try layer($0.name)(value)
      return Feature(name: $0.name, tensor: value, stride: $0.stride)
    }
  }
}
