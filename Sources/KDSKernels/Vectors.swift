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

/// Lane-wise maximum; a NaN in `b` is passed over.
@inline(__always)
func maximum<V: SIMD>(_ a: V, _ b: V) -> V where V.Scalar == Float {
  a.replacing(with: b, where: b .> a)
}

/// Lane-wise minimum; a NaN in `b` is passed over.
@inline(__always)
func minimum<V: SIMD>(_ a: V, _ b: V) -> V where V.Scalar == Float {
  a.replacing(with: b, where: b .< a)
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
