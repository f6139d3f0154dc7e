import CKDSwift
import KDSTensor

@implementation @_cdecl("kds_op_apply")
public func kds_op_apply(
  _ name: UnsafePointer<CChar>?, _ attributes_json: UnsafePointer<CChar>?,
  _ inputs: UnsafePointer<OpaquePointer?>?, _ count: Int32, _ capacity: Int32,
  _ outputs: UnsafeMutablePointer<OpaquePointer?>?, _ out_count: UnsafeMutablePointer<Int32>?
) -> Int32 {
  boundary {
    let operation = try text(name, "name")
    let attributes = try attributes_json.map { try text($0, "attributes_json") } ?? ""
    let arguments = try tensors(inputs, count: count, operation)
    let written = try required(out_count, "out_count")
    let results = try OpRegistry.apply(operation, arguments, attributes: attributes)
    guard results.count <= Int(capacity) else {
      throw KDSError.argument(
        "\(operation): \(results.count) results do not fit into a capacity of \(capacity)")
    }
    if let tall = results.first(where: { $0.rank > Int(KDS_MAX_RANK) }) {
      throw KDSError.shape("\(operation): \(tall.shape) has more than \(KDS_MAX_RANK) axes")
    }
    let handles = try required(outputs, "outputs")
    for (index, result) in results.enumerated() {
      handles[index] = Handle.retain(result, .tensor)
    }
    written.pointee = Int32(results.count)
  }
}

@implementation @_cdecl("kds_op_names")
public func kds_op_names(
  _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    try write(StrictJSON.encode(OpRegistry.names), capacity: capacity, out_needed, out_text)
  }
}

@implementation @_cdecl("kds_op_describe")
public func kds_op_describe(
  _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary { try write(OpRegistry.describe(), capacity: capacity, out_needed, out_text) }
}

/// The tensors behind an array of handles.
private func tensors(
  _ handles: UnsafePointer<OpaquePointer?>?, count: Int32, _ operation: String
) throws -> [Tensor] {
  let count = try checked(count, "count", in: 0...65536)
  if count == 0 { return [] }
  let handles = try required(handles, "inputs")
  return try (0..<count).map { try tensor(handles[$0], "input \($0) of \(operation)") }
}
