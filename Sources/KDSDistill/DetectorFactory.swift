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
  return try FasterRCNN(configuration, seed: seed)
}
