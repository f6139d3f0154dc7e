/// e^x of 16 numbers, by the polynomial of `fastExp` and with its limits.
@inline(__always)
func fastExp(_ x: SIMD16<Float>) -> SIMD16<Float> {
  var clamped = x.replacing(with: -104, where: x .< -104)
  clamped.replace(with: 89, where: clamped .> 89)
  let magic = SIMD16<Float>(repeating: 12_582_912)
  let shifted = clamped * 1.442_695_04 + magic
  let whole = shifted - magic
  let r = (clamped - whole * 0.693_359_375) - whole * -2.121_944_4e-4
  var p = r * 1.984_127e-4 + 1.388_888_9e-3
  p = p * r + 8.333_333_3e-3
  p = p * r + 4.166_666_7e-2
  p = p * r + 0.166_666_67
  p = p * r + 0.5
  p = p * r * r + r + 1
  let n = unsafeBitCast(shifted, to: SIMD16<Int32>.self) &- 0x4B40_0000
  let half = n &>> 1
  let first = unsafeBitCast((half &+ 127) &<< 23, to: SIMD16<Float>.self)
  let second = unsafeBitCast((n &- half &+ 127) &<< 23, to: SIMD16<Float>.self)
  return p * first * second
}
