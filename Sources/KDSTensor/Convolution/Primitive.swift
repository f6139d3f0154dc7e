import COneDNN
import KDSKernels

/// A oneDNN primitive: owned, immutable, safe to run from several threads.
final class Primitive {
  let handle: OpaquePointer
  private let scratchpadBytes: Int

  init(_ handle: OpaquePointer) {
    self.handle = handle
    scratchpadBytes = Int(kds_dnn_argument_bytes(handle, DNNL_ARG_SCRATCHPAD))
  }
  deinit { dnnl_primitive_destroy(handle) }

  /// For example "jit:avx512_core" or "ref:any".
  var implementation: String { String(cString: kds_dnn_implementation(handle)) }

  func bytes(of argument: Int32) -> Int { Int(kds_dnn_argument_bytes(handle, argument)) }

  /// Whether both want their weights in one layout: shapes of one layer on several levels often do.
  func sharesWeights(with other: Primitive) -> Bool {
    self === other || kds_dnn_same_layout(handle, other.handle, DNNL_ARG_WEIGHTS_0) != 0
  }

  /// Runs on the given buffers: (DNNL_ARG_*, memory in the layout that the primitive wants).
  func run(_ operation: String, _ given: [(Int32, UnsafeMutableRawPointer)]) throws {
    var (arguments, status) = (given, Int32(0))
    let scratchpad = scratchpadBytes > 0 ? try Storage(byteCount: scratchpadBytes) : nil
    if let scratchpad { arguments.append((DNNL_ARG_SCRATCHPAD, scratchpad.pointer)) }
    defer { withExtendedLifetime(scratchpad) {} }
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: arguments.count) { ids in
      withUnsafeTemporaryAllocation(
        of: UnsafeMutableRawPointer?.self, capacity: arguments.count
      ) { buffers in
        for (index, argument) in arguments.enumerated() {
          ids[index] = argument.0
          buffers[index] = argument.1
        }
        status = kds_dnn_execute(
          handle, Int32(arguments.count), ids.baseAddress!, buffers.baseAddress!)
      }
    }
    if status != 0 { throw KDSError.runtime("\(operation): oneDNN failed with status \(status)") }
  }
}

/// Primitives by what they compute; made once per shape, kept for the life of the process.
final class PrimitiveCache<Key: Hashable> {
  private var table: [Key: Primitive?] = [:]
  private let lock = Lock()

  /// The primitive for `key`; nil is remembered too: oneDNN has none for that geometry.
  func find(_ key: Key, make: () -> OpaquePointer?) -> Primitive? {
    lock.withLock {
      if let known = table[key] { return known }
      let made = make().map(Primitive.init)
      table[key] = .some(made)
      return made
    }
  }
}

/// Copies of one weight tensor in the layouts that primitives want, made at first use and dropped when
/// the weight changes. A frozen teacher therefore packs once.
final class PackedWeights {
  private var version = -1
  private var copies: [(primitive: Primitive, storage: Storage)] = []
  private var signs: (version: Int, filters: PackedBinaryFilters)?
  private let lock = Lock()

  /// The signs as bits, made anew when the weights have changed.
  func signs(
    version current: Int, make: () throws -> PackedBinaryFilters
  ) rethrows -> PackedBinaryFilters {
    try lock.withLock {
      if let signs, signs.version == current { return signs.filters }
      let made = try make()
      signs = (current, made)
      return made
    }
  }

  func copy(
    for primitive: Primitive, version current: Int, make: () throws -> Storage
  ) rethrows -> Storage {
    try lock.withLock {
      if version != current {
        copies.removeAll(keepingCapacity: true)
        version = current
      }
      if let known = copies.first(where: { $0.primitive.sharesWeights(with: primitive) }) {
        return known.storage
      }
      let made = try make()
      copies.append((primitive, made))
      return made
    }
  }
}
