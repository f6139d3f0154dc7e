import CKDSwift
import KDSDetection
import KDSDistill
import KDSNN
import KDSTensor

/// Options of `kds_detector_tucker` beside the ranks, which are an object or absent.
private struct SurgeryOptions: Codable {
  /// Part of the FLOPs that the model may keep; 0 takes VBMF's ranks as they are.
  var flops = 0.0
  /// Layers to factorise; empty takes all.
  var layers: [String] = []
  /// Size for which FLOPs are counted; 0 takes the detector's shorter side.
  var height = 0
  var width = 0
}

@implementation @_cdecl("kds_detector_tucker")
public func kds_detector_tucker(
  _ detector: OpaquePointer?, _ options_json: UnsafePointer<CChar>?,
  _ out_detector: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let out = try required(out_detector, "out_detector")
    let original = try KDSwift.detector(detector)
    let (options, ranks) = try surgeryOptions(text(options_json, "options_json"))
    let copy = try copyDetector(original)
    let costs = try layerCosts(copy, surgerySize(options, copy))
    let report = try tucker(
      copy,
      TuckerOptions(
        ranks: ranks ?? (options.flops > 0 ? .flops(options.flops) : .vbmf),
        layers: options.layers.isEmpty ? nil : options.layers, maps: fullyConnectedMaps(copy)),
      costs: costs)
    // Rebuilt from its own configuration, so that a file of it loads by the same path.
    let rebuilt = try rebuild(copy, report.record)
    out.pointee = Handle.retain(
      DetectorBox(rebuilt, surgeryReport: try StrictJSON.encode(report)), .detector)
  }
}

@implementation @_cdecl("kds_detector_surgery_report")
public func kds_detector_surgery_report(
  _ detector: OpaquePointer?, _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    let box = try Handle.get(detector, .detector, argument: "detector")
    try write(box.surgeryReport, capacity: capacity, out_needed, out_text)
  }
}

/// Splits the ranks off: a layer's ranks are [output] or [input, output].
private func surgeryOptions(_ json: String) throws -> (SurgeryOptions, RankChoice?) {
  guard case .object(var fields) = try StrictJSON.parse(json, what: "tucker options") else {
    throw KDSError.argument("tucker: options must be a JSON object")
  }
  let given = fields.removeValue(forKey: "ranks")
  let options = try StrictJSON.decode(
    JSONValue.object(fields).text, defaults: SurgeryOptions(), what: "tucker options")
  guard let given, given != .null, given != .string("vbmf") else { return (options, nil) }
  guard case .object(let layers) = given else {
    throw KDSError.argument("tucker: ranks must be \"vbmf\" or an object of layers")
  }
  return (options, .explicit(try layers.mapValues(layerRanks)))
}

private func layerRanks(_ value: JSONValue) throws -> TuckerRanks {
  guard case .array(let list) = value, (1...2).contains(list.count) else {
    throw KDSError.argument("tucker: ranks of a layer are [output] or [input, output]")
  }
  let numbers = try list.map { entry -> Int in
    guard case .int(let number) = entry, (1...65536).contains(number) else {
      throw KDSError.argument("tucker: a rank must be a whole number from 1 to 65536")
    }
    return Int(number)
  }
  return TuckerRanks(
    input: numbers.count == 2 ? numbers[0] : nil, output: numbers[numbers.count - 1])
}

private func surgerySize(_ options: SurgeryOptions, _ model: any Detector) throws -> Size2 {
  let side = model.common.image_min
  return Size2(
    options.height > 0 ? try checked(options.height, "height", in: 1...1 << 14) : side,
    options.width > 0 ? try checked(options.width, "width", in: 1...1 << 14) : side)
}

/// The first fully connected layer reads a pooled map: it is factorised as the convolution that it is.
private func fullyConnectedMaps(_ model: any Detector) -> [String: Size2] {
  guard let model = model as? FasterRCNN, !model.roiHead.sizes.hidden.isEmpty,
    model.module(at: "roi_heads.box_head.fc6") is Linear
  else { return [:] }
  return ["roi_heads.box_head.fc6": Size2(model.roiHead.sizes.poolSize)]
}

/// Another detector with the same configuration and weights.
func copyDetector(_ model: any Detector) throws -> any Detector {
  let copy = try makeDetector(model.configurationText(), seed: 0)
  try copyState(from: model, to: copy)
  return copy
}

func rebuild(_ model: any Detector, _ record: SurgeryRecord) throws -> any Detector {
  var configuration = model.common
  let all = try surgeryRecord(configuration.surgery).followed(by: record)
  configuration.surgery = try StrictJSON.encode(all)
  let made = try makeDetector(StrictJSON.encode(configuration), seed: 0)
  try copyState(from: model, to: made)
  return made
}

private func copyState(from: any Detector, to: any Detector) throws {
  let target = Dictionary(
    (to.namedParameters() + to.namedBuffers()).map { ($0.name, $0.tensor) },
    uniquingKeysWith: { first, _ in first })
  // Whole numbers follow from the structure: the copy has them.
  for (name, tensor) in from.namedParameters() + from.namedBuffers()
  where tensor.dtype == .float32 {
    guard let other = target[name], other.shape == tensor.shape else {
      throw KDSError.runtime("surgery: the copy has no \"\(name)\" of shape \(tensor.shape)")
    }
    other.floats.update(from: tensor.floats, count: tensor.count)
    other.markChanged()
  }
}
