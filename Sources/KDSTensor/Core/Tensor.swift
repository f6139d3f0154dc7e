import KDSKernels

/// An n-dimensional array with a shape, an element type, a layout and, if asked for, a gradient.
///
/// Tensors are contiguous. A reshape shares storage; everything else that moves elements copies.
/// Values are written once, by the operation that makes the tensor; only leaves (parameters,
/// buffers) are changed in place, through `withMutable…`, which counts `version` up.
public final class Tensor {
  public let shape: [Int]
  public let dtype: DType
  public let layout: Layout
  public let storage: Storage
  /// Whether backward passes leave a `gradient` here. Only for leaves.
  public var requiresGrad = false
  /// The accumulated gradient: same shape, plain layout for plain tensors.
  public var gradient: Tensor?
  /// Counts in-place changes; caches of packed weights compare it.
  public private(set) var version = 0
  /// The operation that made this tensor, when it is on the tape.
  var node: Node?
  /// Packed copies of a weight, keyed by what a primitive wants; see `PackedWeights`.
  var packed: PackedWeights?

  /// A tensor over existing storage.
  public init(storage: Storage, shape: [Int], dtype: DType = .float32, layout: Layout = .plain) {
    self.storage = storage
    self.shape = shape
    self.dtype = dtype
    self.layout = layout
  }

  /// A tensor with undefined content.
  public convenience init(
    uninitialized shape: [Int], dtype: DType = .float32, layout: Layout = .plain
  ) throws {
    let storage = try Storage(byteCount: layout.byteCount(shape, dtype))
    self.init(storage: storage, shape: shape, dtype: dtype, layout: layout)
  }

  /// A float tensor filled with one value.
  public convenience init(filled value: Float, shape: [Int], layout: Layout = .plain) throws {
    try self.init(uninitialized: shape, layout: layout)
    floats.update(repeating: value, count: storedCount)
    if value != 0, case .blocked = layout { clearChannelPadding() }
  }

  /// Zeros.
  public static func zeros(
    _ shape: [Int], dtype: DType = .float32, layout: Layout = .plain
  ) throws -> Tensor {
    let tensor = try Tensor(uninitialized: shape, dtype: dtype, layout: layout)
    tensor.storage.pointer.initializeMemory(
      as: UInt8.self, repeating: 0, count: layout.byteCount(shape, dtype))
    return tensor
  }

  /// From Swift numbers, row-major; throws when the count is not the shape's.
  public convenience init(_ values: [Float], shape: [Int]) throws {
    guard values.count == shape.reduce(1, *) else {
      throw KDSError.shape("tensor: \(values.count) values for shape \(shape)")
    }
    try self.init(uninitialized: shape)
    values.withUnsafeBufferPointer {
      if let base = $0.baseAddress { floats.update(from: base, count: values.count) }
    }
  }

  /// Integers from Swift numbers.
  public convenience init(_ values: [Int64], shape: [Int]) throws {
    guard values.count == shape.reduce(1, *) else {
      throw KDSError.shape("tensor: \(values.count) values for shape \(shape)")
    }
    try self.init(uninitialized: shape, dtype: .int64)
    values.withUnsafeBufferPointer {
      if let base = $0.baseAddress { integers.update(from: base, count: values.count) }
    }
  }

  /// A scalar.
  public static func scalar(_ value: Float) throws -> Tensor { try Tensor([value], shape: []) }

  // MARK: - Reading

  /// Logical number of elements.
  public var count: Int { shape.reduce(1, *) }
  /// Elements in memory, padding included.
  public var storedCount: Int { layout.elementCount(shape) }
  public var rank: Int { shape.count }
  /// The elements, in the tensor's own layout. The pointer lives as long as the tensor.
  public var floats: UnsafeMutablePointer<Float> {
    storage.pointer.assumingMemoryBound(to: Float.self)
  }
  /// The elements of a tensor in the `half` layout.
  var halves: UnsafeMutablePointer<Half> { storage.pointer.assumingMemoryBound(to: Half.self) }
  /// The elements of an int64 tensor.
  public var integers: UnsafeMutablePointer<Int64> {
    storage.pointer.assumingMemoryBound(to: Int64.self)
  }
  /// The one element of a scalar.
  public var item: Float { floats[0] }

  /// A copy of the elements in row-major order.
  public func values() throws -> [Float] {
    let source = try Tape.withoutGrad { try self.plain() }
    return Array(UnsafeBufferPointer(start: source.floats, count: source.count))
  }

  /// Announces an in-place change: packed copies made before are stale.
  public func markChanged() { version &+= 1 }

  /// The same values, off the tape; storage is shared.
  public func detached() -> Tensor {
    if node == nil && !requiresGrad { return self }
    return Tensor(storage: storage, shape: shape, dtype: dtype, layout: layout)
  }

  /// A deep copy, off the tape.
  public func copied() throws -> Tensor {
    let result = try Tensor(uninitialized: shape, dtype: dtype, layout: layout)
    result.storage.pointer.copyMemory(
      from: storage.pointer, byteCount: layout.byteCount(shape, dtype))
    return result
  }

  /// Whether operations on this tensor go on the tape.
  public var isTracked: Bool { requiresGrad || node != nil }

  func clearChannelPadding() {
    guard case .blocked(let block) = layout, shape[1] % block != 0 else { return }
    let (channels, area) = (shape[1], shape[2] * shape[3])
    let blocks = (channels + block - 1) / block
    let first = channels - (blocks - 1) * block
    for image in 0..<shape[0] {
      let base = floats + (image * blocks + blocks - 1) * area * block
      for pixel in 0..<area {
        for lane in first..<block { base[pixel * block + lane] = 0 }
      }
    }
  }
}

extension Tensor: CustomStringConvertible {
  public var description: String { "Tensor(\(shape), \(dtype), \(layout))" }
}
