import KDSNN

extension ChainPlan {
  /// VGG-16 (Simonyan and Zisserman 2015) with torchvision's names (`features.0`, `features.2`, …):
  /// 13 convolutions 3×3; the last pooling is left to the RoI head.
  static func vgg16() -> ChainPlan {
    let blocks = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    var steps: [ChainStep] = []
    var index = 0
    for (stage, (channels, count)) in blocks.enumerated() {
      if stage > 0 {
        steps.append(.pool(kernel: 2, stride: 2))
        index += 1
      }
      for position in 1...count {
        steps.append(
          .convolution(
            name: "\(index)", channels: channels, kernel: 3, padding: 1, stage: stage,
            feature: position == count ? "conv\(stage + 1)" : nil))
        index += 2
      }
    }
    return ChainPlan(
      steps: steps,
      head: RoIHeadDefaults(poolSize: 7, hidden: [4096, 4096], dropout: 0.5, rpnChannels: 512),
      frozenStages: 2)
  }

  /// The CaffeNet of Fast R-CNN (Girshick 2015, after Krizhevsky et al. 2012): pooling before response
  /// normalization, two groups in conv2, conv4 and conv5.
  ///
  /// - Parameter padded: padding 5 in conv1 and 1 in the pools, as the detector has and the
  ///   classification network has not.
  static func alexnet(padded: Bool) -> ChainPlan {
    let pad = padded ? 1 : 0
    let response = LocalResponseNorm(size: 5, alpha: 1e-4, beta: 0.75, k: 1)
    return ChainPlan(
      steps: [
        .convolution(
          name: "conv1", channels: 96, kernel: 11, stride: 4, padding: 5 * pad, stage: 0,
          feature: "conv1"),
        .pool(kernel: 3, stride: 2, padding: pad), .normalize(response),
        .convolution(
          name: "conv2", channels: 256, kernel: 5, padding: 2, groups: 2, stage: 1,
          feature: "conv2"),
        .pool(kernel: 3, stride: 2, padding: pad), .normalize(response),
        .convolution(
          name: "conv3", channels: 384, kernel: 3, padding: 1, stage: 2, feature: "conv3"),
        .convolution(
          name: "conv4", channels: 384, kernel: 3, padding: 1, groups: 2, stage: 3,
          feature: "conv4"),
        .convolution(
          name: "conv5", channels: 256, kernel: 3, padding: 1, groups: 2, stage: 4,
          feature: "conv5"),
      ],
      head: RoIHeadDefaults(poolSize: 6, hidden: [4096, 4096], dropout: 0.5, rpnChannels: 256),
      frozenStages: 1)
  }

  /// torchvision's AlexNet (Krizhevsky 2014, one tower) with its names: no groups, no response
  /// normalization; the last pooling is left to the RoI head.
  static func alexnetOneTower() -> ChainPlan {
    ChainPlan(
      steps: [
        .convolution(
          name: "0", channels: 64, kernel: 11, stride: 4, padding: 2, stage: 0, feature: "conv1"),
        .pool(kernel: 3, stride: 2),
        .convolution(
          name: "3", channels: 192, kernel: 5, padding: 2, stage: 1, feature: "conv2"),
        .pool(kernel: 3, stride: 2),
        .convolution(
          name: "6", channels: 384, kernel: 3, padding: 1, stage: 2, feature: "conv3"),
        .convolution(
          name: "8", channels: 256, kernel: 3, padding: 1, stage: 3, feature: "conv4"),
        .convolution(
          name: "10", channels: 256, kernel: 3, padding: 1, stage: 4, feature: "conv5"),
      ],
      head: RoIHeadDefaults(poolSize: 6, hidden: [4096, 4096], dropout: 0.5, rpnChannels: 256),
      frozenStages: 1)
  }

  /// VGG_CNN_M_1024 (Chatfield et al. 2014): the "M" of Fast R-CNN.
  static func vggM() -> ChainPlan {
    let response = LocalResponseNorm(size: 5, alpha: 5e-4, beta: 0.75, k: 2)
    return ChainPlan(
      steps: [
        .convolution(
          name: "conv1", channels: 96, kernel: 7, stride: 2, padding: 0, stage: 0, feature: "conv1"),
        .normalize(response), .pool(kernel: 3, stride: 2),
        .convolution(
          name: "conv2", channels: 256, kernel: 5, stride: 2, padding: 1, stage: 1,
          feature: "conv2"),
        .normalize(response), .pool(kernel: 3, stride: 2),
        .convolution(
          name: "conv3", channels: 512, kernel: 3, padding: 1, stage: 2, feature: "conv3"),
        .convolution(
          name: "conv4", channels: 512, kernel: 3, padding: 1, stage: 3, feature: "conv4"),
        .convolution(
          name: "conv5", channels: 512, kernel: 3, padding: 1, stage: 4, feature: "conv5"),
      ],
      head: RoIHeadDefaults(poolSize: 6, hidden: [4096, 1024], dropout: 0.5, rpnChannels: 256),
      frozenStages: 1)
  }
}
