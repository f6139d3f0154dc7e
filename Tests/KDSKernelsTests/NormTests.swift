import KDSKernels
import Testing

@Suite struct NormTests {
  @Test(arguments: [(1, 1), (3, 5), (70, 16), (130, 33), (2, 5000)])
  func layerNorm(_ sizes: (Int, Int)) {
    let (rows, columns) = sizes
    let n = rows * columns
    let (x, g) = (randoms(n, 1, -2, 5), randoms(n, 2))
    let (weight, bias) = (randoms(columns, 3), randoms(columns, 4))
    var y = [Float](repeating: .nan, count: n)
    var (means, inverses) = ([Float](repeating: 0, count: rows), [Float](repeating: 0, count: rows))
    Kernels.layerNormForward(
      x, rows: rows, columns: columns, weight: weight, bias: bias, eps: 1e-3, output: &y,
      means: &means, inverses: &inverses)
    let expected = Reference.layerNorm(
      x, rows: rows, columns: columns, weight: weight, bias: bias, eps: 1e-3)
    #expect(error(y, expected.output) < 1e-5)
    #expect(error(means, expected.means) < 1e-6 && error(inverses, expected.inverses) < 1e-5)
    var gx = y
    var (gw, gb) = (weight, bias)
    Kernels.layerNormBackward(
      input: x, gradOutput: g, rows: rows, columns: columns, weight: weight, means: means,
      inverses: inverses, gradInput: &gx, gradWeight: &gw, gradBias: &gb)
    let back = Reference.layerNormBackward(
      x, gradOutput: g, rows: rows, columns: columns, weight: weight, eps: 1e-3)
    // A single column has inverse = 1 / sqrt(eps) = 32, which multiplies the rounding.
    #expect(error(gx, back.input) < 3e-5)
    #expect(error(gw, back.weight) < 2e-5 && error(gb, back.bias) < 1e-5)
  }

  @Test(arguments: [(1, 2, 1, 2), (2, 6, 35, 3), (3, 32, 20, 1), (2, 4, 5000, 2)])
  func groupNorm(_ sizes: (Int, Int, Int, Int)) {
    let (images, channels, area, groups) = sizes
    let n = images * channels * area
    let (x, g) = (randoms(n, 1, -2, 5), randoms(n, 2))
    let (weight, bias) = (randoms(channels, 3), randoms(channels, 4))
    let shape = GroupNormGeometry(images: images, channels: channels, area: area, groups: groups)
    var y = [Float](repeating: .nan, count: n)
    var means = [Float](repeating: 0, count: images * groups)
    var inverses = means
    Kernels.groupNormForward(
      x, shape, weight: weight, bias: bias, eps: 1e-3, output: &y, means: &means,
      inverses: &inverses)
    let expected = Reference.groupNorm(
      x, images: images, channels: channels, area: area, groups: groups, weight: weight,
      bias: bias, eps: 1e-3)
    #expect(error(y, expected.output) < 1e-5)
    var gx = y
    var (gw, gb) = (weight, bias)
    Kernels.groupNormBackward(
      input: x, gradOutput: g, shape, weight: weight, means: means, inverses: inverses,
      gradInput: &gx, gradWeight: &gw, gradBias: &gb)
    let back = Reference.groupNormBackward(
      x, gradOutput: g, images: images, channels: channels, area: area, groups: groups,
      weight: weight, eps: 1e-3)
    #expect(error(gx, back.input) < 3e-5)
    #expect(error(gw, back.weight) < 2e-5 && error(gb, back.bias) < 2e-5)
  }

  @Test(arguments: [
    LRNRule(size: 5, alpha: 0.5, beta: 0.75, bias: 2), LRNRule(size: 3, alpha: 1, beta: 0.6),
    LRNRule(size: 4, alpha: 0.3), LRNRule(size: 1, alpha: 0.3), LRNRule(size: 30, alpha: 0.3),
  ]) func lrn(_ rule: LRNRule) {
    for (channels, area) in [(1, 1), (7, 30), (16, 300)] {
      let n = 2 * channels * area
      let x = randoms(n, 1, -3, 3)
      var (y, d) = (x, x)
      Kernels.lrnForward(
        x, images: 2, channels: channels, area: area, rule: rule, output: &y, denominators: &d)
      let expected = Reference.lrn(x, images: 2, channels: channels, area: area, rule: rule)
      #expect(error(y, expected) < 2e-6)
      if area > 100 { continue }
      let g = randoms(n, 2)
      checkGradient(x, tolerance: 3e-3) { x, gradient in
        var (y, d) = ([Float](repeating: 0, count: n), [Float](repeating: 0, count: n))
        Kernels.lrnForward(
          x, images: 2, channels: channels, area: area, rule: rule, output: &y, denominators: &d)
        if let gradient {
          Kernels.lrnBackward(
            input: x, output: y, denominators: d, gradOutput: g, images: 2, channels: channels,
            area: area, rule: rule, gradInput: gradient)
        }
        return zip(y, g).reduce(0) { $0 + Double($1.0) * Double($1.1) }
      }
    }
  }
}
