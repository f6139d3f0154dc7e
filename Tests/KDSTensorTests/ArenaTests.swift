import KDSKernels
import Testing

@testable import KDSTensor

@Suite struct ArenaTests {
  private let page = Arena.page

  @Test func neighboursBecomeOneBlock() throws {
    let arena = try #require(Arena(reserving: 64 << 20))
    let blocks = try (0..<4).map { _ in try #require(arena.take(4 * page)).block }
    #expect(zip(blocks, blocks.dropFirst()).allSatisfy { $1 - $0 == 4 * page })
    // In an order that joins to the left, to the right and to both.
    for index in [0, 2, 1] { arena.giveBack(blocks[index], size: 4 * page) }
    #expect(arena.cachedBytes == 12 * page)
    let whole = try #require(arena.take(12 * page))
    #expect(whole.block == blocks[0] && !whole.grew && arena.cachedBytes == 0)
  }

  @Test func theSmallestThatFitsIsCut() throws {
    let arena = try #require(Arena(reserving: 64 << 20))
    let sizes = [8, 1, 3, 1, 5, 1].map { $0 * page }
    let blocks = try sizes.map { try #require(arena.take($0)).block }
    for index in [0, 2, 4] { arena.giveBack(blocks[index], size: sizes[index]) }
    #expect(try #require(arena.take(2 * page)).block == blocks[2])
    #expect(try #require(arena.take(page)).block == blocks[2] + 2 * page)
    #expect(try #require(arena.take(4 * page)).block == blocks[4])
    #expect(try #require(arena.take(8 * page)).block == blocks[0])
  }

  @Test func whatIsFreeAtTheEndIsExtended() throws {
    let arena = try #require(Arena(reserving: 64 << 20))
    let first = try #require(arena.take(2 * page)).block
    let last = try #require(arena.take(2 * page)).block
    arena.giveBack(last, size: 2 * page)
    let larger = try #require(arena.take(5 * page))
    #expect(larger.block == last && larger.grew && first + 2 * page == last)
  }

  @Test func aFullArenaRefusesAndRecovers() throws {
    let arena = try #require(Arena(reserving: 32 << 20))
    #expect(arena.take(33 << 20) == nil)
    let most = try #require(arena.take(32 << 20)).block
    #expect(arena.take(page) == nil)
    most.storeBytes(of: 7, toByteOffset: (32 << 20) - 8, as: Int.self)
    arena.giveBack(most, size: 32 << 20)
    arena.releaseFree()
    #expect(arena.cachedBytes == 0)
    // What the system has taken back comes again as zeros.
    let again = try #require(arena.take(32 << 20)).block
    #expect(again.load(fromByteOffset: (32 << 20) - 8, as: Int.self) == 0)
  }

  /// Blocks never overlap, whatever the order; each keeps what was written to it.
  @Test func randomTrafficKeepsContents() throws {
    let arena = try #require(Arena(reserving: 256 << 20))
    var random = SeededGenerator(state: 7)
    var held: [(block: UnsafeMutableRawPointer, size: Int, mark: Int)] = []
    for mark in 0..<2000 {
      if held.count > 40 || (mark % 3 == 2 && !held.isEmpty) {
        let (block, size, mark) = held.remove(at: Int.random(in: 0..<held.count, using: &random))
        for offset in stride(from: 0, to: size, by: page) {
          #expect(block.load(fromByteOffset: offset, as: Int.self) == mark)
        }
        arena.giveBack(block, size: size)
      } else {
        let size = Int.random(in: 1...60, using: &random) * page
        let block = try #require(arena.take(size)).block
        for offset in stride(from: 0, to: size, by: page) {
          block.storeBytes(of: mark, toByteOffset: offset, as: Int.self)
        }
        held.append((block, size, mark))
      }
    }
    for item in held { arena.giveBack(item.block, size: item.size) }
    let total = arena.cachedBytes
    #expect(try #require(arena.take(total)).grew == false)
  }

  @Test func moreThanTheMachineHasIsAnError() {
    #expect(throws: KDSError.self) { try Storage(byteCount: 1 << 50) }
    #expect(throws: KDSError.self) { try Storage(byteCount: .max) }
  }

  @Test func steadyCountsAreFewAndNear() {
    var sizes: Set<Int> = []
    for count in 0...4096 {
      let size = steadyCount(count)
      #expect(size >= count && Double(size) <= max(1, Double(count) * 1.125))
      if count > 16 { sizes.insert(size) }
    }
    // Eight octaves above 16, eight sizes in each.
    #expect(sizes.count <= 8 * 8 + 1)
  }
}

/// A small generator whose numbers a seed repeats.
private struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state ^ (state >> 29)
  }
}
