// Elementary functions as straight-line scalar code: only multiplications, selects and integer
// shifts, so that a plain loop around them vectorises. libm's expf is about ten times slower.

/// e^x with relative error below 3e-7 where the result is a normal number.
///
/// +inf gives +inf, -inf gives 0, NaN gives NaN; results below the normal range are rounded to
/// subnormals or 0.
@inline(__always)
func fastExp(_ x: Float) -> Float {
  // 104 > 150 ln 2 / 1: below it even the smallest subnormal is out of reach. A NaN passes both.
  var clamped = x < -104 ? -104 : x
  clamped = clamped > 89 ? 89 : clamped
  // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits of the sum.
  let magic: Float = 12_582_912
  let shifted = clamped * 1.442_695_04 + magic
  let whole = shifted - magic
  // ln 2 in two parts; the first has 9 significant bits, so whole * part is exact.
  let r = (clamped - whole * 0.693_359_375) - whole * -2.121_944_4e-4
  // Taylor to degree 7 on |r| <= ln 2 / 2: the remainder is 0.3466^8 / 8! = 5e-9.
  var p: Float = 1.984_127e-4
  p = p * r + 1.388_888_9e-3
  p = p * r + 8.333_333_3e-3
  p = p * r + 4.166_666_7e-2
  p = p * r + 0.166_666_67
  p = p * r + 0.5
  p = p * r * r + r + 1
  // 2^n as a product of two powers, each inside the exponent range for n in -151...129.
  let n = Int32(bitPattern: shifted.bitPattern) &- 0x4B40_0000
  let half = n &>> 1
  let first = Float(bitPattern: UInt32(bitPattern: (half &+ 127) &<< 23))
  let second = Float(bitPattern: UInt32(bitPattern: (n &- half &+ 127) &<< 23))
  return p * first * second
}

/// log(1 + y) for 0 <= y <= 1, relative error below 3e-7: 2 atanh(y / (2 + y)) as a series.
@inline(__always)
func fastLog1p(_ y: Float) -> Float {
  let s = y / (2 + y)
  let q = s * s
  // q <= 1/9; the first omitted term is q^8 / 17 = 1.4e-9.
  var p: Float = 1.0 / 15
  p = p * q + 1.0 / 13
  p = p * q + 1.0 / 11
  p = p * q + 1.0 / 9
  p = p * q + 1.0 / 7
  p = p * q + 0.2
  p = p * q + 1.0 / 3
  p = p * q * s + s
  return p + p
}

/// Natural logarithm of a positive normal number, absolute error below 1e-7 * max(1, |log x|).
@inline(__always)
func fastLog(_ x: Float) -> Float {
  // Centre the mantissa in [sqrt(1/2), sqrt(2)) by moving the exponent's borrow point.
  let bits = Int32(bitPattern: x.bitPattern) &- 0x3F35_04F3
  let exponent = Float(bits &>> 23)
  let m = Float(bitPattern: UInt32(bitPattern: (bits & 0x007F_FFFF) &+ 0x3F35_04F3))
  let s = (m - 1) / (m + 1)
  let q = s * s
  // |s| <= 0.1716; the first omitted term is q^6 / 13 = 5e-11.
  var p: Float = 1.0 / 11
  p = p * q + 1.0 / 9
  p = p * q + 1.0 / 7
  p = p * q + 0.2
  p = p * q + 1.0 / 3
  p = p * q * s + s
  return exponent * 0.693_359_375 + (p + p + exponent * -2.121_944_4e-4)
}

/// 1 / sqrt(x) of a positive normal number, relative error below 2e-7; finite for 0.
///
/// `squareRoot()` keeps loops scalar (it may set errno); this halves the exponent by a shift and
/// takes three Newton steps (errors 3.4e-2, 1.8e-3, 4.7e-6, then rounding).
@inline(__always)
func fastInverseRoot(_ x: Float) -> Float {
  var y = Float(bitPattern: 0x5F37_59DF &- (x.bitPattern &>> 1))
  let half = 0.5 * x
  y = y * (1.5 - half * y * y)
  y = y * (1.5 - half * y * y)
  y = y * (1.5 - half * y * y)
  return y
}

/// log(1 + e^x) without overflow.
@inline(__always)
func fastSoftplus(_ x: Float) -> Float {
  (x > 0 ? x : 0) + fastLog1p(fastExp(-abs(x)))
}

/// 1 / (1 + e^-x) without overflow.
@inline(__always)
func fastSigmoid(_ x: Float) -> Float {
  let e = fastExp(-abs(x))
  return (x >= 0 ? 1 : e) / (1 + e)
}

extension Kernels {
  /// e^x of one number, by the polynomial that all kernels use.
  public static func exp(_ x: Float) -> Float { fastExp(x) }

  /// out[i] = e^x[i]; `out` may be `x`. Relative error at most 3e-7; ±inf and NaN as in IEEE.
  public static func exp(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ n: Int
  ) {
    parallelFor(count: n, grain: elementGrain) { range in
      let source = x + range.lowerBound
      let target = out + range.lowerBound
      for i in 0..<range.count { target[i] = fastExp(source[i]) }
    }
  }

  /// out[i] = 1 / (1 + e^-x[i]); `out` may be `x`.
  public static func sigmoid(
    _ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ n: Int
  ) {
    parallelFor(count: n, grain: elementGrain) { range in
      let source = x + range.lowerBound
      let target = out + range.lowerBound
      for i in 0..<range.count { target[i] = fastSigmoid(source[i]) }
    }
  }

  /// gradInput = gradOutput * y (1 - y), from the *output* y of `sigmoid`.
  public static func sigmoidBackward(
    output: UnsafePointer<Float>, gradOutput: UnsafePointer<Float>,
    gradInput: UnsafeMutablePointer<Float>, _ n: Int
  ) {
    parallelFor(count: n, grain: elementGrain) { range in
      let y = output + range.lowerBound
      let upstream = gradOutput + range.lowerBound
      let target = gradInput + range.lowerBound
      for i in 0..<range.count { target[i] = upstream[i] * y[i] * (1 - y[i]) }
    }
  }
}
