import KDSDetection
import KDSTensor

/// Builds a detector from the JSON that a model file carries, surgery included.
///
/// A key that is absent has the default of that kind of detector: with a feature pyramid torchvision's,
/// else the published ones.
public func makeDetector(_ json: String, seed: UInt64) throws -> any Detector {
  let model: any Detector
  switch try field("detector", of: json) ?? "faster_rcnn" {
  case "faster_rcnn":
    let pyramid = try field("kind", of: json, inside: "neck") == "fpn"
    let configuration = try strict(json, pyramid ? .pyramid : FasterRCNNConfiguration())
    model = try FasterRCNN(configuration, seed: seed)
  case "retinanet":
    model = try RetinaNet(strict(json, RetinaNetConfiguration()), seed: seed)
  case "fcos":
    model = try FCOS(strict(json, FCOSConfiguration()), seed: seed)
  case "atss":
    model = try ATSS(strict(json, ATSSConfiguration()), seed: seed)
  case "gfl":
    model = try GFL(strict(json, GFLConfiguration()), seed: seed)
  case "mask_rcnn":
    model = try FasterRCNN(strict(json, .masked), seed: seed)
  case "cascade_rcnn":
    let masked = try hasSection("mask", json)
    model = try CascadeRCNN(strict(json, masked ? .maskedCascade : .cascaded), seed: seed)
  case "rfcn":
    model = try RFCN(strict(json, .fullyConvolutional), seed: seed)
  case let other:
    throw KDSError.argument(
      "detector: \"\(other)\" is not known; there are \"faster_rcnn\", \"mask_rcnn\", "
        + "\"cascade_rcnn\", \"rfcn\", \"retinanet\", \"fcos\", \"atss\" and \"gfl\"")
  }
  try applyStructure(surgeryRecord(model.common.surgery), to: model)
  return model
}

private func strict<T: Codable>(_ json: String, _ defaults: T) throws -> T {
  try StrictJSON.decode(json, defaults: defaults, what: "detector configuration")
}

/// A text field of a configuration, nil where it is absent or no text (decoding says more then).
private func field(_ name: String, of json: String, inside section: String? = nil) throws -> String?
{
  guard case .object(var fields) = try StrictJSON.parse(json, what: "detector configuration") else {
    return nil
  }
  if let section {
    guard case .object(let inner)? = fields[section] else { return nil }
    fields = inner
  }
  guard case .string(let text)? = fields[name] else { return nil }
  return text
}

/// Whether a configuration has an object under that name.
private func hasSection(_ name: String, _ json: String) throws -> Bool {
  guard case .object(let fields) = try StrictJSON.parse(json, what: "detector configuration"),
    case .object? = fields[name]
  else { return false }
  return true
}

/// The surgery that a configuration records as text; none when it is empty.
public func surgeryRecord(_ text: String) throws -> SurgeryRecord {
  if text.isEmpty { return SurgeryRecord() }
  return try StrictJSON.decode(text, defaults: SurgeryRecord(), what: "surgery")
}
