import KDSKernels
import KDSTensor

/// Names one kind of handle, and with it the Swift type behind.
///
///     extension HandleKind where Value == Tensor { static var tensor: Self { .init("tensor") } }
struct HandleKind<Value> {
  let name: String
  init(_ name: String) { self.name = name }
}

/// What a handle stands for. The generic class is the type check: no other kind casts to it.
private final class HandleBox<Value>: HandleEntry {
  let value: Value
  init(_ value: Value, kind: String) {
    self.value = value
    super.init(kind: kind)
  }
}

private class HandleEntry {
  let kind: String
  init(kind: String) { self.kind = kind }
}

/// The objects that callers hold.
///
/// A handle is a number that only looks like a pointer: it is never followed and never used twice. A
/// released handle, one of another kind, or garbage is therefore an error and not a crash.
enum Handle {
  private static let lock = Lock()
  nonisolated(unsafe) private static var entries: [UInt: HandleEntry] = [:]
  nonisolated(unsafe) private static var last: UInt = 0x6b64_7300_0000_0000

  /// A new handle that keeps `value` until `release`.
  static func retain<Value>(_ value: Value, _ kind: HandleKind<Value>) -> OpaquePointer? {
    let entry = HandleBox(value, kind: kind.name)
    let number = lock.withLock {
      last += 16
      entries[last] = entry
      return last
    }
    return OpaquePointer(bitPattern: number)
  }

  /// The object behind a handle; an error that names the argument when there is none of that kind.
  static func get<Value>(
    _ pointer: OpaquePointer?, _ kind: HandleKind<Value>, argument: String
  ) throws -> Value {
    let entry = try find(pointer, kind.name, argument: argument)
    guard let box = entry as? HandleBox<Value> else {
      throw KDSError.argument("\(argument) is a \(entry.kind) handle, expected a \(kind.name)")
    }
    return box.value
  }

  /// Ends a handle. NULL does nothing.
  static func release<Value>(_ pointer: OpaquePointer?, _ kind: HandleKind<Value>) throws {
    if pointer == nil { return }
    _ = try get(pointer, kind, argument: kind.name)
    // The object may run long code when it dies, so it leaves the lock first.
    let ended = lock.withLock { entries.removeValue(forKey: UInt(bitPattern: pointer)) }
    _ = ended
  }

  /// How many handles are alive.
  static var liveCount: Int { lock.withLock { entries.count } }

  private static func find(
    _ pointer: OpaquePointer?, _ kind: String, argument: String
  ) throws -> HandleEntry {
    guard let pointer else { throw KDSError.argument("\(argument) is NULL, expected a \(kind)") }
    let entry = lock.withLock { entries[UInt(bitPattern: pointer)] }
    guard let entry else {
      throw KDSError.argument("\(argument) is not a live \(kind) handle (released, or never made)")
    }
    return entry
  }
}
