/// Φ(x), the standard normal distribution below x, and e^(-x²/2); relative error of both below 2e-6
/// where they are normal numbers (that of the exponent, x² / 2 · 6e-8, weighs most), below 3e-7 for
/// |x| < 2.
///
/// With z = |x| / √2 the tail is erfc(z) / 2 = e^(-z²) g(z) / 2, and g = t · p(t) with t = 1 / (1 + z / 2),
/// the form of Abramowitz and Stegun 7.1.26. The coefficients are our own least maximum of the relative
/// error over 0 <= z <= 10.5 (4.3e-8); beyond it e^(-z²) is 0.
@inline(__always)
func normalDistribution(_ x: Float) -> (below: Float, bell: Float) {
  let t = 1 / (1 + abs(x) * 0.353_553_39)
  var p: Float = -0.059_193_332
  p = p * t + 0.285_182_83
  p = p * t - 0.488_460_9
  p = p * t + 0.279_512_6
  p = p * t - 0.027_623_456
  p = p * t + 0.203_109_93
  p = p * t + 0.242_996_62
  p = p * t + 0.282_390_06
  p = p * t + 0.282_085_57
  let bell = fastExp(-0.5 * x * x)
  let tail = 0.5 * p * t * bell
  return (x < 0 ? tail : 1 - tail, bell)
}

/// x Φ(x): the Gaussian error linear unit (Hendrycks and Gimpel 2016), without the tanh approximation.
@inline(__always)
func scalarGELU(_ x: Float) -> Float { x * normalDistribution(x).below }

/// Φ(x) + x φ(x), the derivative of x Φ(x); 1 / √(2π) = 0.39894228.
@inline(__always)
func scalarGELUSlope(_ x: Float) -> Float {
  let (below, bell) = normalDistribution(x)
  return below + x * bell * 0.398_942_28
}
