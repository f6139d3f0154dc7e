import CKDSwift
import KDSDetection
import KDSDistill
import KDSTensor

extension HandleKind where Value == Trainer {
  static var trainer: Self { .init("trainer") }
}

private func trainer(_ handle: OpaquePointer?) throws -> Trainer {
  try Handle.get(handle, .trainer, argument: "trainer")
}

private func batches(
  _ batch: OpaquePointer?, _ teacherBatch: OpaquePointer?
) throws -> (RawBatch, RawBatch?) {
  let first = try Handle.get(batch, .batch, argument: "batch")
  let second = try teacherBatch.map { try Handle.get($0, .batch, argument: "teacher_batch") }
  if let second, second.images.count != first.images.count {
    throw KDSError.argument(
      "teacher_batch: \(second.images.count) images for \(first.images.count) of the student")
  }
  return (first, second)
}

@implementation @_cdecl("kds_trainer_create")
public func kds_trainer_create(
  _ student: OpaquePointer?, _ teachers: UnsafePointer<OpaquePointer?>?, _ teacher_count: Int32,
  _ options_json: UnsafePointer<CChar>?, _ out_trainer: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let out = try required(out_trainer, "out_trainer")
    let count = try checked(teacher_count, "teacher_count", in: 0...256)
    let list = try (0..<count).map {
      try detector(try required(teachers, "teachers")[$0], "teachers[\($0)]")
    }
    let made = try Trainer(
      student: detector(student, "student"), teachers: list,
      options: TrainerOptions(json: text(options_json, "options_json")))
    out.pointee = Handle.retain(made, .trainer)
  }
}

@implementation @_cdecl("kds_trainer_release")
public func kds_trainer_release(_ trainer: OpaquePointer?) -> Int32 {
  boundary { try Handle.release(trainer, .trainer) }
}

@implementation @_cdecl("kds_trainer_step")
public func kds_trainer_step(
  _ trainer: OpaquePointer?, _ batch: OpaquePointer?, _ teacher_batch: OpaquePointer?
) -> Int32 {
  boundary {
    let target = try KDSwift.trainer(trainer)
    let (first, second) = try batches(batch, teacher_batch)
    try target.step(first, teacherBatch: second)
  }
}

@implementation @_cdecl("kds_trainer_metrics")
public func kds_trainer_metrics(
  _ trainer: OpaquePointer?, _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    let metrics = try KDSwift.trainer(trainer).metrics
    let members = Dictionary(
      metrics.map { ($0.name, JSONValue.double($0.value)) }, uniquingKeysWith: { $1 })
    try write(JSONValue.object(members).text, capacity: capacity, out_needed, out_text)
  }
}

@implementation @_cdecl("kds_trainer_forward")
public func kds_trainer_forward(
  _ trainer: OpaquePointer?, _ batch: OpaquePointer?, _ teacher_batch: OpaquePointer?,
  _ out_taps: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let target = try KDSwift.trainer(trainer)
    let (first, second) = try batches(batch, teacher_batch)
    try target.forward(first, teacherBatch: second)
    try give(target.pendingTaps(), out_taps, "out_taps")
  }
}

@implementation @_cdecl("kds_trainer_finish")
public func kds_trainer_finish(
  _ trainer: OpaquePointer?, _ losses: UnsafePointer<OpaquePointer?>?,
  _ names_json: UnsafePointer<CChar>?, _ count: Int32
) -> Int32 {
  boundary {
    let target = try KDSwift.trainer(trainer)
    let number = try checked(count, "count", in: 0...4096)
    if number == 0 { return try target.finish() }
    let names = try StrictJSON.decode(
      [String].self, text(names_json, "names_json"), what: "names_json")
    guard names.count == number else {
      throw KDSError.argument("finish: \(names.count) names for \(number) losses")
    }
    let terms = try (0..<number).map { index in
      LossTerm(
        name: names[index],
        tensor: try tensor(try required(losses, "losses")[index], "losses[\(index)]"),
        weight: 1)
    }
    try target.finish(extra: terms)
  }
}

@implementation @_cdecl("kds_trainer_add_parameter")
public func kds_trainer_add_parameter(
  _ trainer: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ parameter: OpaquePointer?
) -> Int32 {
  boundary {
    try KDSwift.trainer(trainer).addParameter(text(name, "name"), tensor(parameter, "parameter"))
  }
}

@implementation @_cdecl("kds_trainer_step_count")
public func kds_trainer_step_count(
  _ trainer: OpaquePointer?, _ out_steps: UnsafeMutablePointer<Int64>?
) -> Int32 {
  boundary {
    let steps = try KDSwift.trainer(trainer).stepCount
    try required(out_steps, "out_steps").pointee = Int64(steps)
  }
}

@implementation @_cdecl("kds_trainer_set_step_count")
public func kds_trainer_set_step_count(_ trainer: OpaquePointer?, _ steps: Int64) -> Int32 {
  boundary {
    try KDSwift.trainer(trainer).stepCount = checked(steps, "steps", in: 0...1 << 40)
  }
}

@implementation @_cdecl("kds_trainer_set_factor")
public func kds_trainer_set_factor(
  _ trainer: OpaquePointer?, _ part: Int32, _ factor: Double
) -> Int32 {
  boundary { try KDSwift.trainer(trainer).setFactor(factor, part: Int(part)) }
}

@implementation @_cdecl("kds_trainer_state")
public func kds_trainer_state(
  _ trainer: OpaquePointer?, _ out_map: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary { try give(KDSwift.trainer(trainer).state(), out_map, "out_map") }
}

@implementation @_cdecl("kds_trainer_load")
public func kds_trainer_load(
  _ trainer: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ value: OpaquePointer?
) -> Int32 {
  boundary { try KDSwift.trainer(trainer).load(text(name, "name"), tensor(value, "value")) }
}

@implementation @_cdecl("kds_trainer_report")
public func kds_trainer_report(
  _ trainer: OpaquePointer?, _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    let report = try KDSwift.trainer(trainer).report
    try write(StrictJSON.encode(report), capacity: capacity, out_needed, out_text)
  }
}
