import KDSNN
import KDSTensor

/// One step of a network without branches.
enum ChainStep {
  /// Convolution with bias and ReLU.
  /// - name: inside `features`; stage: for freezing, from 0; feature: name of the map after it.
  case convolution(
    name: String, channels: Int, kernel: Int, stride: Int = 1, padding: Int, groups: Int = 1,
    stage: Int, feature: String? = nil)
  /// Max pooling.
  case pool(kernel: Int, stride: Int, padding: Int = 0)
  /// Local response normalization.
  case normalize(LocalResponseNorm)
}

/// What distinguishes one network without branches from another.
struct ChainPlan {
  var steps: [ChainStep]
  /// RoI head at width 1.
  var head: RoIHeadDefaults
  /// Stages that the published detector keeps frozen.
  var frozenStages: Int
}

/// AlexNet and the VGGs: convolutions `features.<name>` with ReLU, pooling, nothing else.
final class ChainBackbone: Backbone {
  private let plan: ChainPlan

  init(
    _ configuration: BackboneConfiguration, _ plan: ChainPlan, _ initializer: Initializer
  ) throws {
    guard configuration.output_stride == 0 || configuration.output_stride == 16 else {
      throw KDSError.argument(
        "\(configuration.name): output_stride \(configuration.output_stride) is not 16, the only one"
      )
    }
    self.plan = plan
    super.init(
      configuration: configuration,
      descriptions: Self.describe(plan.steps, width: configuration.width))
    let features = child("features", Module())
    var channels = configuration.in_channels
    for case .convolution(
      let name, let wanted, let kernel, let stride, let padding, let groups, _, _)
      in plan.steps
    {
      let outputs = scaledChannels(wanted, by: configuration.width)
      features.child(
        name,
        try Conv2d(
          channels, outputs, kernel: kernel, stride: stride, padding: padding, groups: groups,
          activation: .relu, initializer))
      channels = outputs
    }
  }

  private static func describe(_ steps: [ChainStep], width: Double) -> [FeatureDescription] {
    var total = 1
    var result: [FeatureDescription] = []
    for step in steps {
      switch step {
      case .convolution(_, let channels, _, let stride, _, _, _, let feature):
        total *= stride
        if let feature {
          let scaled = scaledChannels(channels, by: width)
          result.append(FeatureDescription(name: feature, channels: scaled, stride: total))
        }
      case .pool(_, let stride, _): total *= stride
      case .normalize: break
      }
    }
    return result
  }

  override var headDefaults: RoIHeadDefaults { plan.head.scaled(by: configuration.width) }

  override var publishedFrozenStages: Int { plan.frozenStages }

  override var stages: [[String]] {
    var result: [[String]] = []
    for case .convolution(let name, _, _, _, _, _, let stage, _) in plan.steps {
      if stage == result.count { result.append([]) }
      result[stage].append("features.\(name)")
    }
    return result
  }

  override func mapSizes(_ input: Size2) -> [Size2] {
    var size = input
    var result: [Size2] = []
    func slide(_ kernel: Int, _ stride: Int, _ padding: Int, _ roundUp: Bool) {
      func count(_ length: Int) -> Int {
        windowCount(
          length, kernel: kernel, stride: stride, before: padding, after: padding, roundUp: roundUp)
      }
      size = Size2(count(size.height), count(size.width))
    }
    for step in plan.steps {
      switch step {
      case .convolution(_, _, let kernel, let stride, let padding, _, _, let feature):
        slide(kernel, stride, padding, false)
        if feature != nil { result.append(size) }
      case .pool(let kernel, let stride, let padding):
        slide(kernel, stride, padding, configuration.caffe_rounding)
      case .normalize: break
      }
    }
    return result
  }

  override func features(_ images: Tensor) throws -> [Feature] {
    try checkImages(images)
    guard let layers = childModule("features") else {
      throw KDSError.runtime("\(configuration.name): its features are gone")
    }
    var value = images
    var result: [Feature] = []
    for step in plan.steps {
      switch step {
      case .convolution(let name, _, _, _, _, _, _, let feature):
        value = try layers.layer(name)(value)
        if let feature {
          let stride = descriptions[result.count].stride
          result.append(Feature(name: feature, tensor: value, stride: stride))
        }
      case .pool(let kernel, let stride, let padding):
        value = try value.pool2d(
          PoolingOptions(
            kernel: Size2(kernel), stride: Size2(stride), padding: Padding(padding),
            roundUp: configuration.caffe_rounding))
      case .normalize(let layer): value = try layer(value)
      }
    }
    return result
  }
}
