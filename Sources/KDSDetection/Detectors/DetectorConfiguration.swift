import KDSTensor

/// What the configurations of all detectors share: classes, image preparation, backbone, neck, anchors.
public protocol DetectorConfiguration: Codable {
  var detector: String { get }
  var num_classes: Int { get }
  var class_names: [String] { get }
  var image_min: Int { get }
  var image_max: Int { get }
  var image_rounding: String { get }
  var size_divisor: Int { get }
  var image_mean: [Float] { get }
  var image_std: [Float] { get }
  var backbone: BackboneConfiguration { get }
  var neck: NeckConfiguration { get }
  var surgery: String { get set }
}

extension DetectorConfiguration {
  /// - Throws: `KDSError.argument` naming the field that cannot be.
  func checkCommon() throws {
    guard num_classes >= 2, num_classes <= 100_000 else {
      throw KDSError.argument("num_classes: \(num_classes) must be at least 2 (background counts)")
    }
    guard class_names.isEmpty || class_names.count == num_classes else {
      throw KDSError.argument(
        "class_names: \(class_names.count) names for num_classes = \(num_classes) (background counts)"
      )
    }
    guard image_min > 0, image_max >= image_min, image_max <= 1 << 14 else {
      throw KDSError.argument(
        "image size: min \(image_min) and max \(image_max) must be 0 < min <= max")
    }
    guard ["round", "floor"].contains(image_rounding) else {
      throw KDSError.argument(
        "image_rounding: \"\(image_rounding)\" is neither \"round\" nor \"floor\"")
    }
    guard size_divisor > 0, size_divisor <= 1024 else {
      throw KDSError.argument("size_divisor: \(size_divisor) must be positive")
    }
    guard image_mean.count == backbone.in_channels, image_std.count == backbone.in_channels,
      image_std.allSatisfy({ $0 > 0 })
    else {
      throw KDSError.argument(
        "image_mean and image_std need \(backbone.in_channels) entries (in_channels), std positive")
    }
  }

  /// - Throws: `KDSError.argument` for a label that is no class of this detector.
  func checkLabels(_ batch: PreparedBatch) throws {
    for (image, labels) in batch.labels.enumerated() {
      for (index, label) in labels.enumerated() where label < 1 || label >= Int64(num_classes) {
        throw KDSError.argument(
          "targets[\(image)]: label \(label) of box \(index) is outside 1...\(num_classes - 1) "
            + "(num_classes = \(num_classes) counts the background)")
      }
    }
  }
}
