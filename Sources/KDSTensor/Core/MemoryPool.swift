import KDSKernels

#if canImport(Glibc)
  import Glibc
#endif

/// Memory for tensors, kept for reuse: 64-byte aligned blocks, shared by all threads.
///
/// Small blocks have a list for each size (an eighth of a power of two apart), large ones are cut from an
/// `Arena`. A training step with steady shapes takes no memory from the system after its first runs
/// (`systemAllocations` stays constant).
public enum MemoryPool {
  nonisolated(unsafe) private static var freeBlocks: [Int: [UnsafeMutableRawPointer]] = [:]
  nonisolated(unsafe) private static var inUse = 0
  nonisolated(unsafe) private static var cachedSmall = 0
  nonisolated(unsafe) private static var peak = 0
  nonisolated(unsafe) private static var allocations = 0
  nonisolated(unsafe) private static let arena = Arena(reserving: physicalMemory)
  private static let lock = Lock()
  /// From here on blocks are whole pages of the arena.
  private static let leastLarge = 16 * Arena.page

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
        bytesInUse: inUse, bytesCached: cachedSmall + (arena?.cachedBytes ?? 0), peakBytes: peak,
        systemAllocations: allocations)
    }
  }

  /// Forgets the peak, so that the next `statistics.peakBytes` speaks of what follows.
  public static func resetPeak() {
    lock.withLock { peak = inUse }
  }

  static func roundedSize(_ byteCount: Int) -> Int {
    if byteCount <= 256 { return 256 }
    if byteCount >= leastLarge {
      let (padded, overflow) = byteCount.addingReportingOverflow(Arena.page - 1)
      return overflow ? byteCount : padded / Arena.page * Arena.page
    }
    let exponent = Int.bitWidth - 1 - byteCount.leadingZeroBitCount
    let step = max(64, 1 << (exponent - 3))
    return (byteCount + step - 1) / step * step
  }

  /// A block of at least `roundedSize` bytes; its content is undefined.
  static func take(_ size: Int) throws -> UnsafeMutableRawPointer {
    try lock.withLock {
      let (block, isNew) = try takeLocked(size)
      if isNew { allocations += 1 }
      inUse += size
      peak = max(peak, inUse)
      return block
    }
  }

  private static func takeLocked(_ size: Int) throws -> (UnsafeMutableRawPointer, isNew: Bool) {
    if size >= leastLarge, let found = arena?.take(size) { return (found.block, found.grew) }
    if let block = freeBlocks[size]?.popLast() {
      cachedSmall -= size
      return (block, false)
    }
    // More than the machine has would be granted now and end the process when it is written.
    let mayExist = size < leastLarge || (arena == nil && size <= physicalMemory)
    var raw: UnsafeMutableRawPointer?
    guard mayExist, posix_memalign(&raw, 64, size) == 0, let raw else {
      throw KDSError.runtime("out of memory: \(size) bytes asked for, \(inUse) in use")
    }
    return (raw, true)
  }

  static func giveBack(_ block: UnsafeMutableRawPointer, size: Int) {
    lock.withLock {
      if size >= leastLarge, let arena, arena.contains(block) {
        arena.giveBack(block, size: size)
      } else {
        freeBlocks[size, default: []].append(block)
        cachedSmall += size
      }
      inUse -= size
    }
  }

  /// Hands all unused memory back to the system.
  public static func releaseCached() {
    lock.withLock {
      for (_, blocks) in freeBlocks { for block in blocks { free(block) } }
      freeBlocks.removeAll()
      arena?.releaseFree()
      cachedSmall = 0
    }
  }

  private static let physicalMemory: Int = {
    let (pages, size) = (sysconf(Int32(_SC_PHYS_PAGES)), sysconf(Int32(_SC_PAGESIZE)))
    return pages > 0 && size > 0 ? pages * size : 1 << 33
  }()
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
