import KDSKernels
import Testing

@Suite struct OptimizerTests {
  @Test func sgdFirstTwoSteps() {
    var (w, v): ([Float], [Float]) = ([1], [.nan])
    Kernels.sgdStep(
      &w, [0.5], buffer: &v, 1, learningRate: 0.1, momentum: 0.9, dampening: 0.5,
      weightDecay: 0.1, firstStep: true)
    // The first buffer is the whole gradient, without dampening: 0.5 + 0.1.
    #expect(abs(v[0] - 0.6) < 1e-6 && abs(w[0] - 0.94) < 1e-6)
    Kernels.sgdStep(
      &w, [0.5], buffer: &v, 1, learningRate: 0.1, momentum: 0.9, dampening: 0.5, weightDecay: 0.1)
    #expect(abs(v[0] - (0.54 + 0.297)) < 1e-6)
    Kernels.sgdStep(&w, [1], buffer: nil, 1, learningRate: 1)
    #expect(abs(w[0] - (0.94 - 0.0837 - 1)) < 1e-6)
  }

  @Test func adamFirstStepIsTheLearningRate() {
    // m / correction = g and sqrt(v / correction) = |g|: the step is learningRate * sign(g).
    var (w, m, v): ([Float], [Float], [Float]) = ([1, 1], [0, 0], [0, 0])
    Kernels.adamStep(
      &w, [0.3, -20], first: &m, second: &v, 2, step: 1, learningRate: 0.01)
    #expect(error(w, [0.99, 1.01]) < 1e-6)
    (w, m, v) = ([1, 1], [0, 0], [0, 0])
    Kernels.adamWStep(
      &w, [0.3, -20], first: &m, second: &v, 2, step: 1, learningRate: 0.01, weightDecay: 0.1)
    #expect(error(w, [0.989, 1.009]) < 1e-6)
  }

  @Test func norms() {
    let x = randoms(70_001, 1)
    let exact = x.reduce(0.0) { $0 + Double($1) * Double($1) }
    #expect(abs(Kernels.sumOfSquares(x, x.count) - exact) < 1e-6 * exact)
    #expect(!Kernels.anyNonFinite(x, x.count))
    for bad: Float in [.nan, .infinity, -.infinity] {
      for place in [0, 33_000, 70_000] {
        var y = x
        y[place] = bad
        #expect(Kernels.anyNonFinite(y, y.count))
      }
    }
    var y = x
    Kernels.scale(&y, y.count, by: 2)
    #expect(y == x.map { 2 * $0 })
  }
}
