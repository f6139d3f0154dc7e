#if canImport(Glibc)
  import Glibc
#endif

/// One block of Philox 4x32-10 (Salmon et al., "Parallel random numbers", 2011).
@inline(__always)
func philox(_ counter: SIMD4<UInt32>, key: SIMD2<UInt32>) -> SIMD4<UInt32> {
  var (c0, c1, c2, c3) = (counter[0], counter[1], counter[2], counter[3])
  var (k0, k1) = (key[0], key[1])
  for _ in 0..<10 {
    let first = UInt64(c0) &* 0xD251_1F53
    let second = UInt64(c2) &* 0xCD9E_8D57
    let next0 = UInt32(truncatingIfNeeded: second &>> 32) ^ c1 ^ k0
    let next2 = UInt32(truncatingIfNeeded: first &>> 32) ^ c3 ^ k1
    c1 = UInt32(truncatingIfNeeded: second)
    c3 = UInt32(truncatingIfNeeded: first)
    c0 = next0
    c2 = next2
    k0 = k0 &+ 0x9E37_79B9
    k1 = k1 &+ 0xBB67_AE85
  }
  return SIMD4(c0, c1, c2, c3)
}

/// Block `index` of the sequence named by (seed, stream): four independent 32-bit words.
@inline(__always)
func philoxBlock(seed: UInt64, stream: UInt64, index: UInt64) -> SIMD4<UInt32> {
  philox(
    SIMD4(
      UInt32(truncatingIfNeeded: index), UInt32(truncatingIfNeeded: index &>> 32),
      UInt32(truncatingIfNeeded: stream), UInt32(truncatingIfNeeded: stream &>> 32)),
    key: SIMD2(UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed &>> 32)))
}

/// 24 random bits as a float in [0, 1).
@inline(__always)
func unitFloat(_ word: UInt32) -> Float { Float(Int32(bitPattern: word &>> 8)) * 0x1p-24 }

/// Two standard normal numbers from two words (Box and Muller); |value| < 5.8.
@inline(__always)
func normalPair(_ a: UInt32, _ b: UInt32) -> (Float, Float) {
  let radius = (-2 * log(unitFloat(a) + 0x1p-24)).squareRoot()
  let angle = 2 * Float.pi * unitFloat(b)
  return (radius * cos(angle), radius * sin(angle))
}

/// A seeded generator without hidden state: the numbers depend on (seed, stream, position) alone, so
/// a run can be resumed by storing `position`, and two streams never share numbers.
public struct CounterRandom: RandomNumberGenerator {
  public let seed: UInt64
  public let stream: UInt64
  /// Blocks of four words already started.
  public private(set) var position: UInt64
  private var block = SIMD4<UInt32>(repeating: 0)
  private var used = 4

  /// Starts at block `position` of the sequence named by `seed` and `stream`.
  public init(seed: UInt64, stream: UInt64 = 0, position: UInt64 = 0) {
    self.seed = seed
    self.stream = stream
    self.position = position
  }

  /// The next 32 random bits.
  public mutating func nextWord() -> UInt32 {
    if used == 4 {
      block = philoxBlock(seed: seed, stream: stream, index: position)
      position &+= 1
      used = 0
    }
    defer { used += 1 }
    return block[used]
  }

  /// The next 64 random bits.
  public mutating func next() -> UInt64 {
    let low = UInt64(nextWord())
    return low | UInt64(nextWord()) &<< 32
  }

  /// Uniform in [0, 1), 24 bits.
  public mutating func uniform() -> Float { unitFloat(nextWord()) }

  /// Uniform in [low, high).
  public mutating func uniform(_ low: Float, _ high: Float) -> Float {
    low + (high - low) * uniform()
  }

  /// Standard normal; uses two words per number.
  public mutating func normal() -> Float {
    let first = nextWord()
    return normalPair(first, nextWord()).0
  }

  /// Uniform in 0..<bound without bias (Lemire's multiplication method); 0 for bound <= 1.
  public mutating func below(_ bound: Int) -> Int {
    if bound <= 1 { return 0 }
    let width = UInt64(bound)
    let threshold = (0 &- width) % width
    while true {
      let product = next().multipliedFullWidth(by: width)
      if product.low >= threshold { return Int(product.high) }
    }
  }

  /// Random permutation in place (Fisher and Yates).
  public mutating func shuffle<Element>(_ values: inout [Element]) {
    var last = values.count - 1
    while last > 0 {
      values.swapAt(last, below(last + 1))
      last -= 1
    }
  }

  /// `k` different elements of `values` in random order; all of them when there are at most `k`.
  public mutating func sample<Element>(_ k: Int, of values: [Element]) -> [Element] {
    var pool = values
    let count = min(max(k, 0), pool.count)
    for index in 0..<count { pool.swapAt(index, index + below(pool.count - index)) }
    return Array(pool[0..<count])
  }

  /// `k` different numbers of 0..<n in random order; all of them when n <= k.
  public mutating func sample(_ k: Int, outOf n: Int) -> [Int] {
    sample(k, of: Array(0..<max(n, 0)))
  }
}

extension Kernels {
  /// Uniform numbers in [low, high); element i depends on (seed, stream, offset + i) alone.
  /// - Parameter offset: position in the sequence; a multiple of 4.
  public static func fillUniform(
    _ out: UnsafeMutablePointer<Float>, _ n: Int, low: Float = 0, high: Float = 1,
    seed: UInt64, stream: UInt64, offset: UInt64 = 0
  ) {
    forEachBlock(n, seed: seed, stream: stream, offset: offset) { start, block in
      for lane in 0..<min(4, n - start) {
        out[start + lane] = low + (high - low) * unitFloat(block[lane])
      }
    }
  }

  /// Normal numbers; element i depends on (seed, stream, offset + i) alone.
  /// - Parameter offset: position in the sequence; a multiple of 4.
  public static func fillNormal(
    _ out: UnsafeMutablePointer<Float>, _ n: Int, mean: Float = 0, deviation: Float = 1,
    seed: UInt64, stream: UInt64, offset: UInt64 = 0
  ) {
    forEachBlock(n, seed: seed, stream: stream, offset: offset) { start, block in
      let (a, b) = normalPair(block[0], block[1])
      let (c, d) = normalPair(block[2], block[3])
      let values = SIMD4(a, b, c, d)
      for lane in 0..<min(4, n - start) { out[start + lane] = mean + deviation * values[lane] }
    }
  }

  /// Mask of dropout: out[i] is 0 with the given probability, else 1 / (1 - probability).
  public static func fillDropout(
    _ out: UnsafeMutablePointer<Float>, _ n: Int, probability: Float,
    seed: UInt64, stream: UInt64, offset: UInt64 = 0
  ) {
    let kept: Float = probability < 1 ? 1 / (1 - probability) : 0
    forEachBlock(n, seed: seed, stream: stream, offset: offset) { start, block in
      for lane in 0..<min(4, n - start) {
        out[start + lane] = unitFloat(block[lane]) < probability ? 0 : kept
      }
    }
  }

  @inline(__always)
  private static func forEachBlock(
    _ n: Int, seed: UInt64, stream: UInt64, offset: UInt64,
    _ body: (Int, SIMD4<UInt32>) -> Void
  ) {
    parallelFor(count: (n + 3) / 4, grain: 2048) { range in
      for index in range {
        let position = offset / 4 &+ UInt64(index)
        body(index * 4, philoxBlock(seed: seed, stream: stream, index: position))
      }
    }
  }
}
