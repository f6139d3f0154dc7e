import CKDSwift
import KDSDetection
import KDSDistill
import KDSTensor

@implementation @_cdecl("kds_detector_binarize")
public func kds_detector_binarize(
  _ detector: OpaquePointer?, _ options_json: UnsafePointer<CChar>?,
  _ out_detector: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let out = try required(out_detector, "out_detector")
    let original = try KDSwift.detector(detector)
    let options = try StrictJSON.decode(
      text(options_json, "options_json"), defaults: BinarizeOptions(), what: "binarize options")
    let copy = try copyDetector(original)
    let report = try binarize(copy, options)
    let rebuilt = try rebuild(copy, report.record)
    out.pointee = Handle.retain(
      DetectorBox(rebuilt, surgeryReport: try StrictJSON.encode(report)), .detector)
  }
}

/// Options of `kds_detector_quantize_features`.
private struct QuantizerOptions: Codable {
  var step: Float = 1
  var form = "uniform"
  /// nil takes every map that heads read.
  var layer: String?
}

@implementation @_cdecl("kds_detector_quantize_features")
public func kds_detector_quantize_features(
  _ detector: OpaquePointer?, _ options_json: UnsafePointer<CChar>?,
  _ out_detector: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let out = try required(out_detector, "out_detector")
    let original = try KDSwift.detector(detector)
    let options = try StrictJSON.decode(
      text(options_json, "options_json"), defaults: QuantizerOptions(),
      what: "quantize_features options")
    let copy = try copyDetector(original)
    let record = try quantizeFeatures(
      copy, step: options.step, form: options.form, layer: options.layer)
    let rebuilt = try rebuild(copy, record)
    out.pointee = Handle.retain(
      DetectorBox(rebuilt, surgeryReport: try StrictJSON.encode(record)), .detector)
  }
}
