import KDSNN
import KDSTensor

/// What distinguishes one residual network from another.
struct ResNetPlan {
  /// Blocks of the four layers.
  let depths: [Int]
  /// Three convolutions a block instead of two, and four times the outputs.
  var bottleneck = true
  /// Groups of the 3×3 convolutions, and channels of each in layer1 (ResNeXt's "32x4d").
  var groups = 1
  var groupWidth = 64

  /// The names in the order of their size.
  static let names = [
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
    "resnext101_32x4d", "resnext101_64x4d",
  ]

  /// He et al. 2016, table 1, and Xie et al. 2017; nil for other names.
  init?(_ name: String) {
    switch name {
    case "resnet18": self.init(depths: [2, 2, 2, 2], bottleneck: false)
    case "resnet34": self.init(depths: [3, 4, 6, 3], bottleneck: false)
    case "resnet50": self.init(depths: [3, 4, 6, 3])
    case "resnet101": self.init(depths: [3, 4, 23, 3])
    case "resnet152": self.init(depths: [3, 8, 36, 3])
    case "resnext50_32x4d": self.init(depths: [3, 4, 6, 3], groups: 32, groupWidth: 4)
    case "resnext101_32x4d": self.init(depths: [3, 4, 23, 3], groups: 32, groupWidth: 4)
    case "resnext101_64x4d": self.init(depths: [3, 4, 23, 3], groups: 64, groupWidth: 4)
    default: return nil
    }
  }

  private init(
    depths: [Int], bottleneck: Bool = true, groups: Int = 1, groupWidth: Int = 64
  ) {
    (self.depths, self.bottleneck) = (depths, bottleneck)
    (self.groups, self.groupWidth) = (groups, groupWidth)
  }

  /// Channels that a layer (from 0) hands on.
  func outputs(_ layer: Int, width: Double) -> Int {
    scaledChannels((bottleneck ? 256 : 64) << layer, by: width)
  }

  /// Channels of the 3×3 convolutions of a layer; the number of groups stays and divides them.
  func inner(_ layer: Int, width: Double) -> Int {
    let published = groups * groupWidth << layer
    if groups == 1 { return scaledChannels(published, by: width) }
    return max(1, Int((Double(published) * width / Double(groups)).rounded())) * groups
  }
}

/// ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017) as torchvision builds them, with the names of
/// its `state_dict`: `conv1`, `bn1`, `layer1.0.conv1`, … Features layer1 to layer4 at strides 4 to 32.
///
/// `output_stride` 16 keeps layer4 at layer3's size and dilates its 3×3 convolutions instead, as R-FCN's
/// backbone and torchvision's `replace_stride_with_dilation` do: all but the first block's by 2.
/// `dcn_stages` makes the 3×3 convolutions of whole layers deformable (Zhu et al. 2019).
final class ResNet: Backbone {
  private let stem: ConvNorm

  init(
    _ configuration: BackboneConfiguration, _ plan: ResNetPlan, _ initializer: Initializer
  ) throws {
    let name = configuration.name
    let norm = try Normalization(configuration.norm, of: name)
    let isDilated = configuration.output_stride == 16
    guard [0, 32].contains(configuration.output_stride) || (isDilated && plan.bottleneck) else {
      throw KDSError.argument(
        "\(name): output_stride \(configuration.output_stride) is not 32"
          + (plan.bottleneck ? " or 16" : ", the only one"))
    }
    let deformable = Set(configuration.dcn_stages)
    guard !(isDilated && deformable.contains(4)) else {
      throw KDSError.argument("\(name): dcn_stages with 4 need output_stride 32")
    }
    guard deformable.isSubset(of: 1...4), deformable.count == configuration.dcn_stages.count else {
      throw KDSError.argument(
        "\(name): dcn_stages \(configuration.dcn_stages) must be different numbers from 1 to 4")
    }
    let style = ResidualStyle(
      norm: norm, epsilon: Float(configuration.norm_epsilon), depth: plan.depths.reduce(0, +),
      fanOut: true, groups: plan.groups)
    let width = configuration.width
    stem = style.pair("conv1", "bn1")
    super.init(
      configuration: configuration,
      descriptions: plan.depths.indices.map {
        FeatureDescription(
          name: "layer\($0 + 1)", channels: plan.outputs($0, width: width),
          stride: isDilated ? min(4 << $0, 16) : 4 << $0)
      })
    var channels = scaledChannels(64, by: width)
    try register(
      stem, configuration.in_channels, channels, kernel: 7, stride: 2, style: style,
      activation: .relu, initializer)
    for (index, depth) in plan.depths.enumerated() {
      let layer = child("layer\(index + 1)", Sequential())
      let (inner, outputs) = (plan.inner(index, width: width), descriptions[index].channels)
      for block in 0..<depth {
        let dilates = isDilated && index == 3
        let stride = block == 0 && index > 0 && !dilates ? 2 : 1
        let deforms = deformable.contains(index + 1)
        layer.append(
          plan.bottleneck
            ? try Bottleneck(
              channels, inner: inner, outputs, stride: stride,
              dilation: dilates && block > 0 ? 2 : 1, style: style, deformable: deforms,
              initializer)
            : try BasicBlock(
              channels, outputs, stride: stride, style: style, deformable: deforms, initializer))
        channels = outputs
      }
    }
  }

  /// Those of Faster R-CNN on a feature pyramid.
  override var headDefaults: RoIHeadDefaults {
    RoIHeadDefaults(poolSize: 7, hidden: [1024, 1024], dropout: 0, rpnChannels: 256)
      .scaled(by: configuration.width)
  }

  /// The stem and layer1, as torchvision's and MMDetection's detectors.
  override var publishedFrozenStages: Int { 2 }

  /// The stem, then each layer.
  override var stages: [[String]] { [["conv1", "bn1"]] + descriptions.map { [$0.name] } }

  /// Each step of 2 (convolutions 7×7 and 3×3, and the pooling) rounds up.
  override func mapSizes(_ input: Size2) -> [Size2] {
    descriptions.map {
      Size2(
        (input.height + $0.stride - 1) / $0.stride, (input.width + $0.stride - 1) / $0.stride)
    }
  }

  override func features(_ images: Tensor) throws -> [Feature] {
    try checkImages(images)
    var value = try stem(images, in: self).pool2d(
      PoolingOptions(kernel: Size2(3), stride: Size2(2), padding: Padding(1)))
    return try descriptions.map {
      value = try layer($0.name)(value)
      return Feature(name: $0.name, tensor: value, stride: $0.stride)
    }
  }
}
