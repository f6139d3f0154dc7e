import KDSNN
import KDSTensor

/// What distinguishes one Swin Transformer from another.
struct SwinPlan {
  /// Blocks of the four stages.
  let depths: [Int]

  /// The names in the order of their size.
  static let names = ["swin_t", "swin_s"]
  /// Channels of a head, at every width.
  static let headChannels = 32

  /// Liu et al. 2021, section 3.3; nil for other names.
  init?(_ name: String) {
    switch name {
    case "swin_t": depths = [2, 2, 6, 2]
    case "swin_s": depths = [2, 2, 18, 2]
    default: return nil
    }
  }

  /// Heads of a stage (from 0): 3 in the first one at width 1, and twice as many in each next one.
  func heads(_ stage: Int, width: Double) -> Int {
    max(1, Int((3 * width).rounded())) << stage
  }

  /// Channels of a stage.
  func channels(_ stage: Int, width: Double) -> Int {
    heads(stage, width: width) * Self.headChannels
  }
}

/// Swin Transformer (Liu et al. 2021) as torchvision builds it, with the names of its `state_dict`:
/// `features.0` embeds patches of 4×4 pixels, `features.1`, `.3`, `.5` and `.7` are the stages,
/// `features.2`, `.4` and `.6` merge patches between them. Features stage1 to stage4 at strides 4 to 32.
///
/// As in detectors (MMDetection), each stage's output has a layer normalization of its own, `norm0` to
/// `norm3`, unless `output_norm` is false. Of torchvision's classifier `norm` and `head` have no place.
/// The width scales the heads of 32 channels each; normalization is by layers only.
final class SwinTransformer: Backbone {
  private let context: SwinContext

  init(
    _ configuration: BackboneConfiguration, _ plan: SwinPlan, _ initializer: Initializer
  ) throws {
    try Self.check(configuration)
    let width = configuration.width
    context = SwinContext(epsilon: Float(configuration.norm_epsilon))
    super.init(
      configuration: configuration,
      descriptions: plan.depths.indices.map {
        FeatureDescription(
          name: "stage\($0 + 1)", channels: plan.channels($0, width: width), stride: 4 << $0)
      })
    let features = child("features", Module())
    features.child("0", try embedding(initializer))
    var index = 0
    let last = max(1, plan.depths.reduce(0, +) - 1)
    for (stage, depth) in plan.depths.enumerated() {
      let channels = descriptions[stage].channels
      if stage > 0 {
        features.child("\(2 * stage)", try PatchMerging(channels / 2, context, initializer))
      }
      let blocks = features.child("\(2 * stage + 1)", Sequential())
      for block in 0..<depth {
        // Rising from the input to the output, as in torchvision.
        let drop = configuration.drop_path * Double(index) / Double(last)
        blocks.append(
          try SwinBlock(
            channels, heads: plan.heads(stage, width: width), shifted: block % 2 == 1,
            index: index, drop: Float(drop), context, initializer))
        index += 1
      }
    }
    if configuration.output_norm { try addOutputNorms() }
  }

  private static func check(_ configuration: BackboneConfiguration) throws {
    let name = configuration.name
    guard configuration.norm == BackboneConfiguration().norm else {
      throw KDSError.argument(
        "\(name): norm \"\(configuration.norm)\" is not possible; a Swin Transformer has layer "
          + "normalization only (leave norm as it is)")
    }
    guard [0, 32].contains(configuration.output_stride) else {
      throw KDSError.argument(
        "\(name): output_stride \(configuration.output_stride) is not 32, the only one")
    }
  }

  /// Patches of 4×4 pixels to tokens: the convolution `0` and the normalization `2`.
  private func embedding(_ initializer: Initializer) throws -> Module {
    let (inputs, outputs) = (configuration.in_channels, descriptions[0].channels)
    let module = Module()
    module.child(
      "0",
      Conv2d(
        weight: try initializer.torchDefault([outputs, inputs, 4, 4], fanIn: 16 * inputs),
        bias: try initializer.torchDefault([outputs], fanIn: 16 * inputs),
        options: ConvolutionOptions(stride: Size2(4))))
    module.child("2", try LayerNorm(outputs, epsilon: context.epsilon))
    return module
  }

  private func addOutputNorms() throws {
    for (index, description) in descriptions.enumerated() {
      child("norm\(index)", try LayerNorm(description.channels, epsilon: context.epsilon))
    }
  }

  /// Those of Faster R-CNN on a feature pyramid.
  override var headDefaults: RoIHeadDefaults {
    RoIHeadDefaults(poolSize: 7, hidden: [1024, 1024], dropout: 0, rpnChannels: 256)
      .scaled(by: configuration.width)
  }

  /// The embedding of patches, then each stage with the merging before it and the norm behind it.
  override var stages: [[String]] {
    [["features.0"]]
      + descriptions.indices.map { stage in
        (stage == 0 ? [] : ["features.\(2 * stage)"])
          + ["features.\(2 * stage + 1)"] + (configuration.output_norm ? ["norm\(stage)"] : [])
      }
  }

  override var stepSeed: UInt64? {
    get { context.seed }
    set { context.seed = newValue }
  }

  /// Patches at the edge that are not whole are left out; merging rounds up.
  override func mapSizes(_ input: Size2) -> [Size2] {
    var size = Size2(input.height / 4, input.width / 4)
    return descriptions.indices.map { stage in
      if stage > 0 { size = Size2((size.height + 1) / 2, (size.width + 1) / 2) }
      return size
    }
  }

  override func features(_ images: Tensor) throws -> [Feature] {
    try checkImages(images)
    guard let parts = childModule("features"), let embedding = parts.childModule("0") else {
      throw KDSError.runtime("\(configuration.name): its features are gone")
    }
    var value = try embedding.layer("2")(embedding.layer("0")(images).tokens())
    return try descriptions.enumerated().map { stage, description in
      if stage > 0 { value = try parts.layer("\(2 * stage)")(value) }
      value = try parts.layer("\(2 * stage + 1)")(value)
      let shown = configuration.output_norm ? try layer("norm\(stage)")(value) : value
      return Feature(
        name: description.name, tensor: try shown.featureMap(), stride: description.stride)
    }
  }
}
