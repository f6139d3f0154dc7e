import KDSNN

/// RetinaNet (Lin, Goyal, Girshick, He, Dollár, ICCV 2017): one stage, focal loss over all anchors.
///
/// Parameter and loss names are torchvision's.
public final class RetinaNet: OneStageDetector {
  public init(_ configuration: RetinaNetConfiguration, seed: UInt64) throws {
    try super.init(configuration, seed: seed) { try RetinaHead($0, $1, $2) }
  }
}

/// FCOS (Tian, Shen, Chen, He, ICCV 2019 and "A Simple and Strong Anchor-Free Object Detector", 2020).
///
/// Parameter and loss names are those of torchvision's `fcos_resnet50_fpn`.
public final class FCOS: OneStageDetector {
  public init(_ configuration: FCOSConfiguration, seed: UInt64) throws {
    try super.init(configuration, seed: seed) { try CenternessHead($0, $1, $2) }
  }
}

/// ATSS (Zhang, Chi, Yao, Lei, Li, CVPR 2020): one anchor a place, positives by the statistics of IoUs.
public final class ATSS: OneStageDetector {
  public init(_ configuration: ATSSConfiguration, seed: UInt64) throws {
    try super.init(configuration, seed: seed) { try CenternessHead($0, $1, $2) }
  }
}

/// GFL (Li, Wang, Wu, Chen, Hu, Li, Tang, Yang, "Generalized Focal Loss", NeurIPS 2020): class scores
/// learn the quality of the box, and every side of a box is a distribution.
public final class GFL: OneStageDetector {
  public init(_ configuration: GFLConfiguration, seed: UInt64) throws {
    try super.init(configuration, seed: seed) { try GFLHead($0, $1, $2) }
  }
}
