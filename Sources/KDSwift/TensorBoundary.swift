import CKDSwift
import KDSTensor

extension HandleKind where Value == Tensor {
  static var tensor: Self { .init("tensor") }
}

/// The tensor behind a handle.
func tensor(_ handle: OpaquePointer?, _ argument: String = "tensor") throws -> Tensor {
  try Handle.get(handle, .tensor, argument: argument)
}

/// A new handle on `tensor`, written to the caller's out-pointer.
func give(
  _ tensor: Tensor, _ out: UnsafeMutablePointer<OpaquePointer?>?, _ argument: String = "out_tensor"
) throws {
  try required(out, argument).pointee = Handle.retain(tensor, .tensor)
}

/// The same values, plain and off the tape.
private func plainValues(_ tensor: Tensor) throws -> Tensor {
  try Tape.withoutGrad { try tensor.detached().plain() }
}

// MARK: - Making and ending

@implementation @_cdecl("kds_tensor_create")
public func kds_tensor_create(
  _ dtype: Int32, _ rank: Int32, _ dims: UnsafePointer<Int64>?, _ data: UnsafeRawPointer?,
  _ out_tensor: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    _ = try required(out_tensor, "out_tensor")
    guard let type = DType(rawValue: dtype) else {
      throw KDSError.argument("tensor: dtype is \(dtype), expected 0 (float32) or 1 (int64)")
    }
    let shape = try dimensions(rank: rank, dims, "dims")
    guard let data else { return try give(.zeros(shape, dtype: type), out_tensor) }
    let result = try Tensor(uninitialized: shape, dtype: type)
    result.storage.pointer.copyMemory(from: data, byteCount: result.count * type.size)
    try give(result, out_tensor)
  }
}

@implementation @_cdecl("kds_tensor_release")
public func kds_tensor_release(_ tensor: OpaquePointer?) -> Int32 {
  boundary { try Handle.release(tensor, .tensor) }
}

// MARK: - Reading

@implementation @_cdecl("kds_tensor_info")
public func kds_tensor_info(
  _ tensor: OpaquePointer?, _ capacity: Int32, _ out_dims: UnsafeMutablePointer<Int64>?,
  _ out_rank: UnsafeMutablePointer<Int32>?, _ out_dtype: UnsafeMutablePointer<Int32>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    let (rank, dtype) = (try required(out_rank, "out_rank"), try required(out_dtype, "out_dtype"))
    let written = min(try checked(capacity, "capacity", in: 0...Int(Int32.max)), value.rank)
    if written > 0 {
      let dims = try required(out_dims, "out_dims")
      for axis in 0..<written { dims[axis] = Int64(value.shape[axis]) }
    }
    rank.pointee = Int32(value.rank)
    dtype.pointee = value.dtype.rawValue
  }
}

@implementation @_cdecl("kds_tensor_copy_out")
public func kds_tensor_copy_out(
  _ tensor: OpaquePointer?, _ byte_capacity: Int64, _ out_data: UnsafeMutableRawPointer?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    let bytes = value.count * value.dtype.size
    guard byte_capacity >= Int64(bytes) else {
      throw KDSError.argument("copy_out: \(bytes) bytes needed, byte_capacity is \(byte_capacity)")
    }
    if bytes == 0 { return }
    guard let out_data else { throw KDSError.argument("out_data is NULL") }
    out_data.copyMemory(from: try plainValues(value).storage.pointer, byteCount: bytes)
  }
}

@implementation @_cdecl("kds_tensor_item")
public func kds_tensor_item(
  _ tensor: OpaquePointer?, _ out_value: UnsafeMutablePointer<Double>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    let out = try required(out_value, "out_value")
    guard value.count == 1 else {
      throw KDSError.shape("item: a tensor with one element is needed, not one of \(value.shape)")
    }
    // The first element comes first in every layout.
    out.pointee = value.dtype == .float32 ? Double(value.floats[0]) : Double(value.integers[0])
  }
}

@implementation @_cdecl("kds_tensor_plain")
public func kds_tensor_plain(
  _ tensor: OpaquePointer?, _ out_tensor: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    _ = try required(out_tensor, "out_tensor")
    try give(plainValues(value), out_tensor)
  }
}

@implementation @_cdecl("kds_tensor_data")
public func kds_tensor_data(
  _ tensor: OpaquePointer?, _ out_data: UnsafeMutablePointer<UnsafeRawPointer?>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    guard value.layout == .plain else {
      throw KDSError.argument("data: the tensor lies in \(value.layout), ask for its plain form")
    }
    try required(out_data, "out_data").pointee = UnsafeRawPointer(value.storage.pointer)
  }
}

@implementation @_cdecl("kds_tensor_to_dlpack")
public func kds_tensor_to_dlpack(
  _ tensor: OpaquePointer?, _ versioned: Int32,
  _ out_managed: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> Int32 {
  boundary {
    let value = try plainValues(KDSwift.tensor(tensor))
    let out = try required(out_managed, "out_managed")
    let flag = try checked(versioned, "versioned", in: 0...1)
    let owner = Unmanaged.passRetained(value)
    let managed = kdswift_dlpack_new(
      value.storage.pointer, Int32(value.rank), value.shape.map { Int64($0) },
      value.dtype == .float32 ? 1 : 0, Int32(flag), owner.toOpaque()
    ) { if let owner = $0 { Unmanaged<Tensor>.fromOpaque(owner).release() } }
    guard let managed else {
      owner.release()
      throw KDSError.runtime("to_dlpack: out of memory")
    }
    out.pointee = managed
  }
}

// MARK: - Gradients

@implementation @_cdecl("kds_tensor_get_requires_grad")
public func kds_tensor_get_requires_grad(
  _ tensor: OpaquePointer?, _ out_requires_grad: UnsafeMutablePointer<Int32>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    try required(out_requires_grad, "out_requires_grad").pointee = value.requiresGrad ? 1 : 0
  }
}

@implementation @_cdecl("kds_tensor_set_requires_grad")
public func kds_tensor_set_requires_grad(
  _ tensor: OpaquePointer?, _ requires_grad: Int32
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    let wanted = try checked(requires_grad, "requires_grad", in: 0...1) == 1
    guard value.dtype == .float32 || !wanted else {
      throw KDSError.argument("requires_grad: only float32 tensors have gradients, this is int64")
    }
    guard value.requiresGrad || !value.isTracked else {
      throw KDSError.argument(
        "requires_grad: the tensor of shape \(value.shape) was made by an operation on the tape; "
          + "detach it first")
    }
    value.requiresGrad = wanted
  }
}

@implementation @_cdecl("kds_tensor_is_tracked")
public func kds_tensor_is_tracked(
  _ tensor: OpaquePointer?, _ out_tracked: UnsafeMutablePointer<Int32>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    try required(out_tracked, "out_tracked").pointee = value.isTracked ? 1 : 0
  }
}

@implementation @_cdecl("kds_tensor_grad")
public func kds_tensor_grad(
  _ tensor: OpaquePointer?, _ out_tensor: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    let out = try required(out_tensor, "out_tensor")
    out.pointee = value.gradient.flatMap { Handle.retain($0, .tensor) }
  }
}

@implementation @_cdecl("kds_tensor_zero_grad")
public func kds_tensor_zero_grad(_ tensor: OpaquePointer?) -> Int32 {
  boundary { try KDSwift.tensor(tensor).gradient = nil }
}

@implementation @_cdecl("kds_tensor_backward")
public func kds_tensor_backward(_ tensor: OpaquePointer?, _ seed: OpaquePointer?) -> Int32 {
  boundary {
    let root = try KDSwift.tensor(tensor)
    guard root.dtype == .float32 else {
      throw KDSError.argument("backward: an int64 tensor has no gradient")
    }
    guard seed != nil else { return try Tape.backward(from: root) }
    let gradient = try KDSwift.tensor(seed, "seed")
    guard gradient.shape == root.shape else {
      throw KDSError.shape(
        "backward: seed of shape \(gradient.shape) for a tensor of shape \(root.shape)")
    }
    guard gradient.dtype == .float32 else {
      throw KDSError.argument("backward: seed is int64, expected float32")
    }
    try Tape.backward(from: root, seed: gradient.detached())
  }
}

@implementation @_cdecl("kds_tensor_detach")
public func kds_tensor_detach(
  _ tensor: OpaquePointer?, _ out_tensor: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  boundary {
    let value = try KDSwift.tensor(tensor)
    // A tensor of its own also off the tape, so that asking it for a gradient leaves the other alone.
    let view = Tensor(
      storage: value.storage, shape: value.shape, dtype: value.dtype, layout: value.layout)
    try give(view, out_tensor)
  }
}

@implementation @_cdecl("kds_no_grad_enter")
public func kds_no_grad_enter() -> Int32 { boundary { Tape.changeNoGradDepth(by: 1) } }

@implementation @_cdecl("kds_no_grad_leave")
public func kds_no_grad_leave() -> Int32 { boundary { Tape.changeNoGradDepth(by: -1) } }
