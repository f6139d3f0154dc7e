import CKDSwift
import KDSDetection
import KDSNN
import KDSTensor

extension HandleKind where Value == RawBatch {
  static var batch: Self { .init("batch") }
}

extension HandleKind where Value == DetectionList {
  static var detections: Self { .init("detections") }
}

/// Detections of a batch on their way out.
final class DetectionList {
  let images: [[Detection]]
  /// Of the original images.
  let sizes: [Size2]
  let hasMasks: Bool

  init(_ images: [[Detection]], of batch: RawBatch, hasMasks: Bool) {
    self.images = images
    self.hasMasks = hasMasks
    sizes = batch.images.map { Size2($0.height, $0.width) }
  }
}

// MARK: - Batches

@implementation @_cdecl("kds_batch_create")
public func kds_batch_create(
  _ count: Int32, _ images: UnsafePointer<UnsafeRawPointer?>?, _ dtypes: UnsafePointer<Int32>?,
  _ channels: UnsafePointer<Int64>?, _ heights: UnsafePointer<Int64>?,
  _ widths: UnsafePointer<Int64>?, _ box_counts: UnsafePointer<Int64>?,
  _ boxes: UnsafePointer<Float>?, _ labels: UnsafePointer<Int64>?,
  _ out_batch: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let out = try required(out_batch, "out_batch")
    let number = try checked(count, "count", in: 1...65536)
    var taken = 0
    var list: [RawImage] = []
    for index in 0..<number {
      let size = (
        channels: try checked(try required(channels, "channels")[index], "channels", in: 1...64),
        height: try checked(try required(heights, "heights")[index], "height", in: 1...1 << 16),
        width: try checked(try required(widths, "widths")[index], "width", in: 1...1 << 16)
      )
      let pixels = try readPixels(
        try required(images, "images")[index], try required(dtypes, "dtypes")[index], index,
        size.channels * size.height * size.width)
      let boxCount =
        try box_counts.map { try checked($0[index], "box_counts", in: 0...1 << 20) } ?? 0
      let boxValues = try boxCount == 0 ? [] : read(boxes, "boxes", 4 * taken, 4 * boxCount)
      let labelValues = try boxCount == 0 ? [] : read(labels, "labels", taken, boxCount)
      taken += boxCount
      list.append(
        RawImage(
          pixels: pixels, channels: size.channels, height: size.height, width: size.width,
          boxes: boxValues, labels: labelValues))
    }
    out.pointee = Handle.retain(
      try RawBatch(images: list, hasTargets: box_counts != nil), .batch)
  }
}

private func readPixels(
  _ data: UnsafeRawPointer?, _ dtype: Int32, _ index: Int, _ count: Int
) throws -> RawImage.Pixels {
  guard let data else { throw KDSError.argument("images[\(index)] is NULL") }
  switch dtype {
  case 0:
    let floats = data.assumingMemoryBound(to: Float.self)
    return .floats(Array(UnsafeBufferPointer(start: floats, count: count)))
  case 2:
    let bytes = data.assumingMemoryBound(to: UInt8.self)
    return .bytes(Array(UnsafeBufferPointer(start: bytes, count: count)))
  default:
    throw KDSError.argument("images[\(index)]: dtype \(dtype) is neither 0 (float32) nor 2 (uint8)")
  }
}

private func read<Value>(
  _ pointer: UnsafePointer<Value>?, _ argument: String, _ start: Int, _ count: Int
) throws -> [Value] {
  Array(UnsafeBufferPointer(start: try required(pointer, argument) + start, count: count))
}

@implementation @_cdecl("kds_batch_release")
public func kds_batch_release(_ batch: OpaquePointer?) -> Int32 {
  boundary { try Handle.release(batch, .batch) }
}

@implementation @_cdecl("kds_batch_set_masks")
public func kds_batch_set_masks(
  _ batch: OpaquePointer?, _ image: Int64, _ masks: UnsafeRawPointer?, _ count: Int64
) -> Int32 {
  boundary {
    let raw = try Handle.get(batch, .batch, argument: "batch")
    let image = try checked(image, "image", in: 0...65535)
    let count = try checked(count, "count", in: 0...1 << 40)
    guard masks != nil || count == 0 else { throw KDSError.argument("masks is NULL") }
    let bytes = Array(UnsafeRawBufferPointer(start: masks, count: count))
    try raw.setMasks(bytes, image: image)
  }
}

// MARK: - Running a detector

@implementation @_cdecl("kds_detector_losses")
public func kds_detector_losses(
  _ detector: OpaquePointer?, _ batch: OpaquePointer?, _ seed: Int64,
  _ out_losses: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    let raw = try Handle.get(batch, .batch, argument: "batch")
    guard raw.hasTargets else { throw KDSError.argument("losses: the batch has no targets") }
    let losses = try model.losses(model.prepare(raw), seed: UInt64(bitPattern: seed))
    try give(losses, out_losses, "out_losses")
  }
}

@implementation @_cdecl("kds_detector_features")
public func kds_detector_features(
  _ detector: OpaquePointer?, _ batch: OpaquePointer?,
  _ out_features: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    let raw = try Handle.get(batch, .batch, argument: "batch")
    let prepared = try model.prepare(raw)
    let taps = try model.withTowerTaps(true) { try model.densePass(prepared).taps }
    try give(taps, out_features, "out_features")
  }
}

@implementation @_cdecl("kds_detector_maps")
public func kds_detector_maps(
  _ detector: OpaquePointer?, _ batch: OpaquePointer?,
  _ out_maps: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    let raw = try Handle.get(batch, .batch, argument: "batch")
    try give(model.mapsPass(model.prepare(raw)).taps, out_maps, "out_maps")
  }
}

@implementation @_cdecl("kds_detector_head_from")
public func kds_detector_head_from(
  _ detector: OpaquePointer?, _ branch: UnsafePointer<CChar>?, _ start: Int64, _ level: Int64,
  _ features: OpaquePointer?, _ out_outputs: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    guard let dense = model as? OneStageDetector else {
      throw KDSError.argument("head_from: a one-stage detector is needed, not \(type(of: model))")
    }
    let outputs = try dense.resumedHead(
      tensor(features, "features"), branch: text(branch, "branch"),
      after: checked(start, "start", in: 0...1 << 16),
      level: checked(level, "level", in: 0...1 << 16))
    try give(outputs, out_outputs, "out_outputs")
  }
}

@implementation @_cdecl("kds_detector_predict")
public func kds_detector_predict(
  _ detector: OpaquePointer?, _ batch: OpaquePointer?, _ options_json: UnsafePointer<CChar>?,
  _ out_detections: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    let raw = try Handle.get(batch, .batch, argument: "batch")
    let out = try required(out_detections, "out_detections")
    let options = try StrictJSON.decode(
      text(options_json, "options_json"), defaults: PredictionOptions(), what: "predict options")
    let wasTraining = model.isTraining
    model.setTraining(false)
    defer { model.setTraining(wasTraining) }
    let half = try Precision.isHalf(options.precision, "precision")
    let found = try Precision.withHalf(half) {
      try Tape.withoutGrad { try model.detect(model.prepare(raw), options) }
    }
    out.pointee = Handle.retain(
      DetectionList(found, of: raw, hasMasks: model.hasMasks), .detections)
  }
}

// MARK: - Reading detections

@implementation @_cdecl("kds_detections_counts")
public func kds_detections_counts(
  _ detections: OpaquePointer?, _ capacity: Int64, _ out_counts: UnsafeMutablePointer<Int64>?
) -> Int32 {
  boundary {
    let images = try Handle.get(detections, .detections, argument: "detections").images
    guard capacity >= Int64(images.count) else {
      throw KDSError.argument("detections: capacity \(capacity) is below \(images.count) images")
    }
    let out = try required(out_counts, "out_counts")
    for (index, list) in images.enumerated() { out[index] = Int64(list.count) }
  }
}

@implementation @_cdecl("kds_detections_read")
public func kds_detections_read(
  _ detections: OpaquePointer?, _ capacity: Int64, _ out_boxes: UnsafeMutablePointer<Float>?,
  _ out_scores: UnsafeMutablePointer<Float>?, _ out_labels: UnsafeMutablePointer<Int64>?
) -> Int32 {
  boundary {
    let all = try Handle.get(detections, .detections, argument: "detections").images.flatMap { $0 }
    guard capacity >= Int64(all.count) else {
      throw KDSError.argument("detections: capacity \(capacity) is below \(all.count) detections")
    }
    if all.isEmpty { return }
    let boxes = try required(out_boxes, "out_boxes")
    let scores = try required(out_scores, "out_scores")
    let labels = try required(out_labels, "out_labels")
    for (index, detection) in all.enumerated() {
      for side in 0..<4 { boxes[4 * index + side] = detection.box[side] }
      scores[index] = detection.score
      labels[index] = detection.label
    }
  }
}

@implementation @_cdecl("kds_detections_masks")
public func kds_detections_masks(
  _ detections: OpaquePointer?, _ image: Int64, _ capacity: Int64,
  _ out_needed: UnsafeMutablePointer<Int64>?, _ out_masks: UnsafeMutableRawPointer?
) -> Int32 {
  boundary {
    let list = try Handle.get(detections, .detections, argument: "detections")
    let image = try checked(image, "image", in: 0...list.images.count - 1)
    let (found, size) = (list.images[image], list.sizes[image])
    let area = size.height * size.width
    let needed = list.hasMasks ? found.count * area : 0
    try required(out_needed, "out_needed").pointee = Int64(needed)
    if needed == 0 || capacity < Int64(needed) { return }
    guard let out = out_masks?.assumingMemoryBound(to: UInt8.self) else {
      throw KDSError.argument("out_masks is NULL")
    }
    for (index, detection) in found.enumerated() {
      detection.pasteMask(into: out + index * area, height: size.height, width: size.width)
    }
  }
}

@implementation @_cdecl("kds_detections_release")
public func kds_detections_release(_ detections: OpaquePointer?) -> Int32 {
  boundary { try Handle.release(detections, .detections) }
}
