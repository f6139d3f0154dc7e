#if canImport(Glibc)
  import Glibc
#endif

/// One range of addresses from which blocks are cut: best fit, and neighbours that are free become one.
///
/// Lists of blocks by size would keep a block for every size that ever was; here the memory that a map
/// of one size leaves serves maps of any other. Addresses are reserved once and become memory when they
/// are first written, in 2 MB pages where the system has them. Not safe for several threads.
final class Arena {
  private let base: UInt
  private let capacity: Int
  /// Bytes from `base` that may be touched, and that ever were handed out.
  private var committed = 0
  private var top = 0
  /// Bytes below `top` that nobody uses and that the system has not got back.
  private(set) var cachedBytes = 0
  /// Free blocks: offset to size, end to size, and all ordered by size.
  private var sizeByStart: [Int: Int] = [:]
  private var sizeByEnd: [Int: Int] = [:]
  private var ordered: [Block] = []

  private struct Block: Comparable {
    let size, start: Int
    static func < (a: Block, b: Block) -> Bool { (a.size, a.start) < (b.size, b.start) }
  }

  /// Blocks are whole pages.
  static let page = 4096
  private static let commitStep = 32 << 20

  /// Reserves at most `wanted` bytes of addresses; nil where the system gives none.
  init?(reserving wanted: Int) {
    var size = max(Self.commitStep, wanted / Self.page * Self.page)
    var found: UnsafeMutableRawPointer?
    while size >= Self.commitStep {
      found = mmap(nil, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
      if found != MAP_FAILED { break }
      found = nil
      size /= 2
    }
    guard let found else { return nil }
    let hugePageAdvice: Int32 = 14  // MADV_HUGEPAGE, which Glibc's module does not export
    madvise(found, size, hugePageAdvice)
    (base, capacity) = (UInt(bitPattern: found), size)
  }

  func contains(_ block: UnsafeMutableRawPointer) -> Bool {
    let address = UInt(bitPattern: block)
    return address >= base && address < base + UInt(capacity)
  }

  /// A block of `size` bytes (whole pages), and whether the arena grew for it; nil when it is full.
  func take(_ size: Int) -> (block: UnsafeMutableRawPointer, grew: Bool)? {
    let index = firstFitting(size)
    if index < ordered.count {
      let block = ordered[index]
      remove(block.start, block.size)
      if block.size > size { insert(block.start + size, block.size - size) }
      cachedBytes = max(0, cachedBytes - size)
      return pointer(block.start).map { ($0, false) }
    }
    // What is free at the end counts towards the block.
    let tail = sizeByEnd[top] ?? 0
    let start = top - tail
    guard size <= capacity - start, commit(start + size) else { return nil }
    if tail > 0 { remove(start, tail) }
    cachedBytes = max(0, cachedBytes - tail)
    top = start + size
    return pointer(start).map { ($0, true) }
  }

  func giveBack(_ block: UnsafeMutableRawPointer, size: Int) {
    var start = Int(UInt(bitPattern: block) - base)
    var length = size
    if let next = sizeByStart[start + length] {
      remove(start + length, next)
      length += next
    }
    if let previous = sizeByEnd[start] {
      remove(start - previous, previous)
      (start, length) = (start - previous, length + previous)
    }
    insert(start, length)
    cachedBytes += size
  }

  /// Hands the memory of free blocks back to the system; their addresses stay.
  func releaseFree() {
    for block in ordered {
      if let address = pointer(block.start) { madvise(address, block.size, MADV_DONTNEED) }
    }
    cachedBytes = 0
  }

  private func pointer(_ offset: Int) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: base + UInt(offset))
  }

  private func commit(_ end: Int) -> Bool {
    if end <= committed { return true }
    let wanted = min(capacity, (end + Self.commitStep - 1) / Self.commitStep * Self.commitStep)
    guard let start = pointer(committed),
      mprotect(start, wanted - committed, PROT_READ | PROT_WRITE) == 0
    else { return false }
    committed = wanted
    return true
  }

  /// Where in `ordered` the smallest block of at least `size` bytes is.
  private func firstFitting(_ size: Int) -> Int { lowerBound(Block(size: size, start: -1)) }

  private func lowerBound(_ wanted: Block) -> Int {
    var (low, high) = (0, ordered.count)
    while low < high {
      let middle = (low + high) / 2
      if ordered[middle] < wanted { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private func insert(_ start: Int, _ size: Int) {
    sizeByStart[start] = size
    sizeByEnd[start + size] = size
    let block = Block(size: size, start: start)
    ordered.insert(block, at: lowerBound(block))
  }

  private func remove(_ start: Int, _ size: Int) {
    sizeByStart[start] = nil
    sizeByEnd[start + size] = nil
    ordered.remove(at: lowerBound(Block(size: size, start: start)))
  }
}
