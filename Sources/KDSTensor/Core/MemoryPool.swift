import KDSKernels

#if canImport(Glibc)
  import Glibc
#endif

/// One caching pool of 64-byte aligned blocks, shared by all threads.
///
/// Sizes are rounded up to an eighth of a power of two, so a training step with steady shapes takes
/// no memory from the system after its first run (`systemAllocations` stays constant).
public enum MemoryPool {
  nonisolated(unsafe) private static var freeBlocks: [Int: [UnsafeMutableRawPointer]] = [:]
  nonisolated(unsafe) private static var inUse = 0
  nonisolated(unsafe) private static var cached = 0
  nonisolated(unsafe) private static var peak = 0
  nonisolated(unsafe) private static var allocations = 0
  private static let lock = Lock()

  /// Counters since the start of the process; bytes are rounded block sizes.
  public struct Statistics {
    public let bytesInUse: Int
    public let bytesCached: Int
    public let peakBytes: Int
    public let systemAllocations: Int
  }

  public static var statistics: Statistics {
    lock.withLock {
      Statistics(
        bytesInUse: inUse, bytesCached: cached, peakBytes: peak, systemAllocations: allocations)
    }
  }

  /// Forgets the peak, so that the next `statistics.peakBytes` speaks of what follows.
  public static func resetPeak() {
    lock.withLock { peak = inUse }
  }

  static func roundedSize(_ byteCount: Int) -> Int {
    if byteCount <= 256 { return 256 }
    let exponent = Int.bitWidth - 1 - byteCount.leadingZeroBitCount
    let step = max(64, 1 << (exponent - 3))
    return (byteCount + step - 1) / step * step
  }

  /// A block of at least `roundedSize` bytes; its content is undefined.
  static func take(_ size: Int) throws -> UnsafeMutableRawPointer {
    try lock.withLock { try takeLocked(size) }
  }

  private static func takeLocked(_ size: Int) throws -> UnsafeMutableRawPointer {
    if let block = freeBlocks[size]?.popLast() {
      cached -= size
      inUse += size
      peak = max(peak, inUse)
      return block
    }
    var raw: UnsafeMutableRawPointer?
    if posix_memalign(&raw, 64, size) != 0 || raw == nil {
      releaseCachedLocked()
      if posix_memalign(&raw, 64, size) != 0 || raw == nil {
        throw KDSError.runtime("out of memory: \(size) bytes asked for, \(inUse) in use")
      }
    }
    if size >= 1 << 21 { preferHugePages(raw!, size) }
    allocations += 1
    inUse += size
    peak = max(peak, inUse)
    return raw!
  }

  static func giveBack(_ block: UnsafeMutableRawPointer, size: Int) {
    lock.withLock {
      freeBlocks[size, default: []].append(block)
      cached += size
      inUse -= size
    }
  }

  /// Hands all unused blocks back to the system.
  public static func releaseCached() {
    lock.withLock { releaseCachedLocked() }
  }

  private static func releaseCachedLocked() {
    for (_, blocks) in freeBlocks { for block in blocks { free(block) } }
    freeBlocks.removeAll()
    cached = 0
  }

  /// Asks for 2 MB pages inside the block: maps of some megabytes otherwise miss the address cache.
  private static func preferHugePages(_ block: UnsafeMutableRawPointer, _ size: Int) {
    let first = (UInt(bitPattern: block) + 4095) & ~4095
    let length = (UInt(bitPattern: block) + UInt(size) - first) & ~4095
    let hugePageAdvice: Int32 = 14  // MADV_HUGEPAGE, which Glibc's module does not export
    if let page = UnsafeMutableRawPointer(bitPattern: first) {
      madvise(page, Int(length), hugePageAdvice)
    }
  }
}

/// Owner of one block of the pool; the block goes back when the last tensor over it is gone.
public final class Storage {
  public let pointer: UnsafeMutableRawPointer
  public let byteCount: Int
  private let blockSize: Int

  /// Memory with undefined content. Throws when the system has none.
  public init(byteCount: Int) throws {
    self.byteCount = byteCount
    blockSize = MemoryPool.roundedSize(max(byteCount, 1))
    pointer = try MemoryPool.take(blockSize)
  }

  deinit { MemoryPool.giveBack(pointer, size: blockSize) }
}
