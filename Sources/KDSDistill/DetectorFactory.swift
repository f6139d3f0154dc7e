import KDSDetection
import KDSTensor

/// Builds a detector from the JSON that a model file carries, surgery included.
public func makeDetector(_ json: String, seed: UInt64) throws -> any Detector {
  let configuration = try StrictJSON.decode(
    json, defaults: FasterRCNNConfiguration(), what: "detector configuration")
  guard configuration.detector == "faster_rcnn" else {
    throw KDSError.argument(
      "detector: \"\(configuration.detector)\" is not known; there is \"faster_rcnn\"")
  }
  let model = try FasterRCNN(configuration, seed: seed)
  try applyStructure(surgeryRecord(configuration.surgery), to: model)
  return model
}

/// The surgery that a configuration records as text; none when it is empty.
public func surgeryRecord(_ text: String) throws -> SurgeryRecord {
  if text.isEmpty { return SurgeryRecord() }
  return try StrictJSON.decode(SurgeryRecord.self, text, what: "surgery")
}
