// Shared pieces of the kernels.

/// Elements per piece of work below which an elementwise kernel stays on the calling thread.
let elementGrain = 32768

/// Loads 16 consecutive floats, any alignment.
@inline(__always)
func load16(_ pointer: UnsafePointer<Float>) -> SIMD16<Float> {
  UnsafeRawPointer(pointer).loadUnaligned(as: SIMD16<Float>.self)
}

/// Loads 16 consecutive floats, any alignment.
@inline(__always)
func load16(_ pointer: UnsafeMutablePointer<Float>) -> SIMD16<Float> {
  UnsafeRawPointer(pointer).loadUnaligned(as: SIMD16<Float>.self)
}

/// Stores 16 consecutive floats, any alignment.
@inline(__always)
func store16(_ value: SIMD16<Float>, _ pointer: UnsafeMutablePointer<Float>) {
  UnsafeMutableRawPointer(pointer).storeBytes(of: value, as: SIMD16<Float>.self)
}

// Comparisons are written for concrete vector types: through a generic parameter they become a loop
// over lanes in memory, a hundred times slower.

/// Lane-wise maximum; a NaN in `b` is passed over.
@inline(__always)
func maximum(_ a: SIMD16<Float>, _ b: SIMD16<Float>) -> SIMD16<Float> {
  a.replacing(with: b, where: b .> a)
}

/// Lane-wise minimum; a NaN in `b` is passed over.
@inline(__always)
func minimum(_ a: SIMD16<Float>, _ b: SIMD16<Float>) -> SIMD16<Float> {
  a.replacing(with: b, where: b .< a)
}

/// The lanes of a channel block: what kernels over blocked maps need, for either block size.
protocol ChannelLanes: SIMD where Scalar == Float {
  associatedtype Places: SIMD where Places.Scalar == Int32

  /// self + a * b
  func adding(_ a: Self, times b: Float) -> Self

  /// self * b
  func scaled(by b: Float) -> Self

  /// Where `value` is higher than self: takes it, and notes `place`.
  mutating func raise(to value: Self, at place: Int32, _ places: inout Places)
}

extension SIMD16<Float>: ChannelLanes {
  @inline(__always)
  func adding(_ a: SIMD16<Float>, times b: Float) -> SIMD16<Float> { self + a * b }

  @inline(__always)
  func scaled(by b: Float) -> SIMD16<Float> { self * b }

  @inline(__always)
  mutating func raise(to value: SIMD16<Float>, at place: Int32, _ places: inout SIMD16<Int32>) {
    let higher = value .> self
    replace(with: value, where: higher)
    places.replace(with: SIMD16<Int32>(repeating: place), where: higher)
  }
}

extension SIMD8<Float>: ChannelLanes {
  @inline(__always)
  func adding(_ a: SIMD8<Float>, times b: Float) -> SIMD8<Float> { self + a * b }

  @inline(__always)
  func scaled(by b: Float) -> SIMD8<Float> { self * b }

  @inline(__always)
  mutating func raise(to value: SIMD8<Float>, at place: Int32, _ places: inout SIMD8<Int32>) {
    let higher = value .> self
    replace(with: value, where: higher)
    places.replace(with: SIMD8<Int32>(repeating: place), where: higher)
  }
}

/// Sum of `count` floats with a fixed association: 16 lanes, then the tail.
@inline(__always)
func sum(_ values: UnsafePointer<Float>, _ count: Int) -> Float {
  var lanes = SIMD16<Float>(repeating: 0)
  var index = 0
  while index + 16 <= count {
    lanes += load16(values + index)
    index += 16
  }
  var total: Float = index > 0 ? lanes.sum() : 0
  while index < count {
    total += values[index]
    index += 1
  }
  return total
}

/// Largest of `count` ≥ 1 floats; NaNs are passed over unless the first one is a NaN.
@inline(__always)
func largest(_ values: UnsafePointer<Float>, _ count: Int) -> Float {
  var index = 0
  var best = values[0]
  if count >= 16 {
    var lanes = load16(values)
    index = 16
    while index + 16 <= count {
      lanes = maximum(lanes, load16(values + index))
      index += 16
    }
    for lane in 0..<16 where lanes[lane] > best { best = lanes[lane] }
  }
  while index < count {
    if values[index] > best { best = values[index] }
    index += 1
  }
  return best
}
