import CKDSwift
import KDSDetection
import KDSDistill
import KDSNN
import KDSTensor

/// A detector and what its surgery reported.
final class DetectorBox {
  let model: any Detector
  let surgeryReport: String

  init(_ model: any Detector, surgeryReport: String = "[]") {
    self.model = model
    self.surgeryReport = surgeryReport
  }
}

extension HandleKind where Value == DetectorBox {
  static var detector: Self { .init("detector") }
}

extension HandleKind where Value == TensorMap {
  static var tensorMap: Self { .init("tensor_map") }
}

/// Named tensors on their way out.
final class TensorMap {
  let entries: [(name: String, tensor: Tensor)]
  init(_ entries: [(name: String, tensor: Tensor)]) { self.entries = entries }
}

func detector(_ handle: OpaquePointer?, _ argument: String = "detector") throws -> any Detector {
  try Handle.get(handle, .detector, argument: argument).model
}

func give(
  _ entries: [(name: String, tensor: Tensor)], _ out: UnsafeMutablePointer<OpaquePointer?>?,
  _ argument: String
) throws {
  try required(out, argument).pointee = Handle.retain(TensorMap(entries), .tensorMap)
}

// MARK: - Tensor maps

@implementation @_cdecl("kds_tensor_map_count")
public func kds_tensor_map_count(
  _ map: OpaquePointer?, _ out_count: UnsafeMutablePointer<Int64>?
) -> Int32 {
  boundary {
    let entries = try Handle.get(map, .tensorMap, argument: "map").entries
    try required(out_count, "out_count").pointee = Int64(entries.count)
  }
}

@implementation @_cdecl("kds_tensor_map_names")
public func kds_tensor_map_names(
  _ map: OpaquePointer?, _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    let names = try Handle.get(map, .tensorMap, argument: "map").entries.map(\.name)
    try write(StrictJSON.encode(names), capacity: capacity, out_needed, out_text)
  }
}

@implementation @_cdecl("kds_tensor_map_tensor")
public func kds_tensor_map_tensor(
  _ map: OpaquePointer?, _ index: Int64, _ out_tensor: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let entries = try Handle.get(map, .tensorMap, argument: "map").entries
    guard let position = Int(exactly: index), entries.indices.contains(position) else {
      throw KDSError.argument("tensor_map: index \(index) is outside 0..<\(entries.count)")
    }
    try give(entries[position].tensor, out_tensor)
  }
}

@implementation @_cdecl("kds_tensor_map_release")
public func kds_tensor_map_release(_ map: OpaquePointer?) -> Int32 {
  boundary { try Handle.release(map, .tensorMap) }
}

// MARK: - Life of a detector

@implementation @_cdecl("kds_detector_create")
public func kds_detector_create(
  _ configuration_json: UnsafePointer<CChar>?, _ seed: Int64,
  _ out_detector: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let out = try required(out_detector, "out_detector")
    let model = try makeDetector(
      text(configuration_json, "configuration_json"), seed: UInt64(bitPattern: seed))
    out.pointee = Handle.retain(DetectorBox(model), .detector)
  }
}

@implementation @_cdecl("kds_detector_release")
public func kds_detector_release(_ detector: OpaquePointer?) -> Int32 {
  boundary { try Handle.release(detector, .detector) }
}

@implementation @_cdecl("kds_detector_configuration")
public func kds_detector_configuration(
  _ detector: OpaquePointer?, _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    try write(
      KDSwift.detector(detector).configurationText(), capacity: capacity, out_needed, out_text)
  }
}

// MARK: - Weights

@implementation @_cdecl("kds_detector_state")
public func kds_detector_state(
  _ detector: OpaquePointer?, _ out_map: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    try give(model.namedParameters() + model.namedBuffers(), out_map, "out_map")
  }
}

@implementation @_cdecl("kds_detector_parameter_count")
public func kds_detector_parameter_count(
  _ detector: OpaquePointer?, _ out_count: UnsafeMutablePointer<Int64>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    try required(out_count, "out_count").pointee = Int64(model.namedParameters().count)
  }
}

@implementation @_cdecl("kds_detector_load")
public func kds_detector_load(
  _ detector: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ value: OpaquePointer?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    let (name, value) = (try text(name, "name"), try tensor(value, "value"))
    guard
      let target = (model.namedParameters() + model.namedBuffers()).first(where: { $0.name == name }
      )
    else { throw KDSError.argument("load: the model has no parameter or buffer \"\(name)\"") }
    guard target.tensor.shape == value.shape, value.dtype == target.tensor.dtype else {
      throw KDSError.shape(
        "load: \(name) is \(target.tensor.shape) \(target.tensor.dtype), the value \(value.shape) "
          + "\(value.dtype)")
    }
    if value.dtype == .int64 { return try checkConstant(name, target.tensor, value) }
    let source = try Tape.withoutGrad { try value.detached().plain() }
    target.tensor.floats.update(from: source.floats, count: source.count)
    target.tensor.markChanged()
  }
}

/// Whole numbers follow from a model's structure, and files may only repeat them.
private func checkConstant(_ name: String, _ own: Tensor, _ value: Tensor) throws {
  for index in 0..<own.count where own.integers[index] != value.integers[index] {
    throw KDSError.argument(
      "load: \(name) is fixed by the model and has \(own.integers[index]) at \(index), the value "
        + "\(value.integers[index])")
  }
}

@implementation @_cdecl("kds_detector_set_training")
public func kds_detector_set_training(_ detector: OpaquePointer?, _ training: Int32) -> Int32 {
  boundary { try KDSwift.detector(detector).setTraining(training != 0) }
}

@implementation @_cdecl("kds_detector_set_requires_grad")
public func kds_detector_set_requires_grad(_ detector: OpaquePointer?, _ learns: Int32) -> Int32 {
  boundary { try KDSwift.detector(detector).setRequiresGrad(learns != 0) }
}

@implementation @_cdecl("kds_detector_clear_gradients")
public func kds_detector_clear_gradients(_ detector: OpaquePointer?) -> Int32 {
  boundary { try KDSwift.detector(detector).clearGradients() }
}

// MARK: - About a detector

@implementation @_cdecl("kds_detector_taps")
public func kds_detector_taps(
  _ detector: OpaquePointer?, _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    let taps = try KDSwift.detector(detector).taps
    try write(StrictJSON.encode(taps), capacity: capacity, out_needed, out_text)
  }
}

@implementation @_cdecl("kds_detector_anchors")
public func kds_detector_anchors(
  _ detector: OpaquePointer?, _ height: Int64, _ width: Int64,
  _ out_anchors: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    let size = Size2(
      try checked(height, "height", in: 1...1 << 14), try checked(width, "width", in: 1...1 << 14))
    let grids = try model.anchorGrids(input: size).map {
      (name: $0.level, tensor: try Tensor($0.boxes, shape: [$0.boxes.count / 4, 4]))
    }
    try give(grids, out_anchors, "out_anchors")
  }
}

/// One row of a summary.
private struct LayerSummary: Encodable {
  let name, layer: String
  let parameters: Int
}

@implementation @_cdecl("kds_detector_summary")
public func kds_detector_summary(
  _ detector: OpaquePointer?, _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    let rows = try KDSwift.detector(detector).namedModules()
      .filter { !$0.module.parameters.isEmpty || !$0.module.buffers.isEmpty }
      .map { entry in
        LayerSummary(
          name: entry.name, layer: entry.module.summary,
          parameters: entry.module.parameters.reduce(0) { $0 + $1.tensor.count })
      }
    try write(StrictJSON.encode(rows), capacity: capacity, out_needed, out_text)
  }
}

@implementation @_cdecl("kds_detector_flops")
public func kds_detector_flops(
  _ detector: OpaquePointer?, _ height: Int64, _ width: Int64,
  _ out_flops: UnsafeMutablePointer<Double>?
) -> Int32 {
  boundary {
    let model = try KDSwift.detector(detector)
    let size = Size2(
      try checked(height, "height", in: 1...1 << 14), try checked(width, "width", in: 1...1 << 14))
    try required(out_flops, "out_flops").pointee = try layerCosts(model, size).reduce(0) {
      $0 + $1.flops
    }
  }
}

/// Every layer's work on one gray image of this size, at the network's input.
func layerCosts(_ model: any Detector, _ size: Size2) throws -> [LayerCost] {
  let channels = model.common.backbone.in_channels
  let image = RawImage(
    pixels: .floats([Float](repeating: 0.5, count: channels * size.height * size.width)),
    channels: channels, height: size.height, width: size.width)
  let wasTraining = model.isTraining
  model.setTraining(false)
  defer { model.setTraining(wasTraining) }
  return try FLOPCounter.count(model) {
    let batch = try model.prepare(RawBatch(images: [image], hasTargets: false))
    _ = try model.detect(batch, PredictionOptions())
  }
}
