#if canImport(Glibc)
  import Glibc
#endif

// Functions of one float for the elementwise loops, on top of the polynomials of `Exp.swift`.

/// Natural logarithm of any float: -inf at 0, NaN below it.
@inline(__always) func scalarLog(_ x: Float) -> Float {
  // Subnormals are lifted into the normal range; 2^23 has the logarithm 15.942385.
  let tiny = x < 0x1p-126
  let normal = fastLog(tiny ? x * 0x1p23 : x) - (tiny ? 15.942_385 : 0)
  let finite = x == 0 ? -.infinity : normal
  let checked = x < 0 ? Float.nan : finite
  return x == .infinity || x != x ? x : checked
}

/// tanh with relative error below 5e-7 everywhere.
@inline(__always) func scalarTanh(_ x: Float) -> Float {
  let size = abs(x)
  let e = fastExp(-2 * size)
  let large = (1 - e) / (1 + e)
  // 1 - e loses digits near 0: there the Taylor series, whose next term is 0.0089 * 0.3^10 = 5e-8.
  let q = size * size
  var p: Float = 62.0 / 2835
  p = p * q - 17.0 / 315
  p = p * q + 2.0 / 15
  p = p * q - 1.0 / 3
  let small = size + size * q * p
  let result = size < 0.3 ? small : large
  return x < 0 ? -result : result
}

@inline(__always) func scalarPower(_ x: Float, _ exponent: Float) -> Float { pow(x, exponent) }
