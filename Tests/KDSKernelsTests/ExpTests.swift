import Glibc
import KDSKernels
import Testing

@Suite struct ExpTests {
  @Test func relativeErrorOverTheNormalRange() {
    let count = 200_001
    let x = (0..<count).map { Float(-87.3 + 176.0 * Double($0) / Double(count - 1)) }
    var y = x
    Kernels.exp(x, &y, count)
    var worst = 0.0
    for (a, b) in zip(x, y) where a < 88.72 {
      let exact = Glibc.exp(Double(a))
      worst = max(worst, abs(Double(b) - exact) / exact)
    }
    // 2^-24 per rounding, about four of them that matter.
    #expect(worst <= 3e-7)
  }

  @Test func specialValues() {
    let x: [Float] = [
      .infinity, -.infinity, .nan, 0, -0.0, 88.72, 88.73, 1000, -1000, -103.9, -104.1, 1e38, -1e38,
    ]
    var y = x
    Kernels.exp(x, &y, x.count)
    #expect(y[0] == .infinity && y[1] == 0 && y[2].isNaN && y[3] == 1 && y[4] == 1)
    #expect(y[5].isFinite && y[6] == .infinity && y[7] == .infinity && y[8] == 0)
    #expect(y[9] > 0 && y[9] <= 2 * Float.leastNonzeroMagnitude && y[10] == 0)
    #expect(y[11] == .infinity && y[12] == 0)
  }

  @Test(arguments: [0, 1, 7, 8, 15, 16, 17, 33, 100]) func anyLengthGivesTheSameBits(_ n: Int) {
    let x = randoms(n, 1, -20, 20)
    var y = [Float](repeating: 0, count: n)
    Kernels.exp(x, &y, n)
    #expect(y.indices.allSatisfy { y[$0] == Kernels.exp(x[$0]) })
  }

  @Test func sigmoidIsAccurateAtBothEnds() {
    let x = randoms(1000, 2, -80, 80) + [.infinity, -.infinity, 0]
    var y = x
    Kernels.sigmoid(x, &y, x.count)
    for (a, b) in zip(x, y) {
      let exact = 1 / (1 + Glibc.exp(-Double(a)))
      #expect(abs(Double(b) - exact) <= 4e-7 * exact)
    }
    var gradient = x
    Kernels.sigmoidBackward(
      output: y, gradOutput: [Float](repeating: 2, count: x.count), gradInput: &gradient, x.count)
    #expect(gradient[x.count - 1] == 0.5)
  }
}

@Suite struct SoftmaxTests {
  static let widths = [1, 2, 3, 15, 16, 17, 21, 81, 130]

  @Test(arguments: widths) func softmaxAndLogSoftmax(_ columns: Int) {
    let rows = 5
    let x = randoms(rows * columns, 3, -30, 30)
    var (p, l) = (x, x)
    var s = [Float](repeating: 0, count: rows)
    Kernels.softmax(x, &p, rows: rows, columns: columns)
    Kernels.logSoftmax(x, &l, rows: rows, columns: columns)
    Kernels.logSumExp(x, &s, rows: rows, columns: columns)
    for row in 0..<rows {
      let z = x[row * columns..<(row + 1) * columns].map(Double.init)
      let total = z.map { Glibc.exp($0) }.reduce(0, +)
      // Exponents up to 60 carry an absolute error of 60 * 2^-24 = 4e-6.
      #expect(abs(Double(s[row]) - log(total)) < 4e-6)
      for c in 0..<columns {
        #expect(abs(Double(p[row * columns + c]) - Glibc.exp(z[c]) / total) < 1e-6)
        #expect(abs(Double(l[row * columns + c]) - (z[c] - log(total))) < 1e-5)
      }
    }
  }

  @Test func extremeRows() {
    let x: [Float] = [1000, 999, -.infinity, -.infinity, -.infinity, -.infinity, 0, .nan, 1]
    var p = x
    Kernels.softmax(x, &p, rows: 3, columns: 3)
    #expect(abs(p[0] - 0.7310586) < 1e-6 && p[2] == 0)
    #expect(p[3...].allSatisfy { $0.isNaN })
    var s: [Float] = [0, 0]
    Kernels.logSumExp(x, &s, rows: 2, columns: 3)
    #expect(abs(s[0] - 1000.3133) < 1e-3 && s[1] == -.infinity)
  }

  @Test(arguments: [2, 17]) func gradients(_ columns: Int) {
    let n = 2 * columns
    let x = randoms(n, 4, -2, 2)
    let upstream = randoms(n, 5)
    checkGradient(x) { x, gradient in
      var y = [Float](repeating: 0, count: n)
      Kernels.softmax(x, &y, rows: 2, columns: columns)
      if let gradient {
        Kernels.softmaxBackward(
          output: y, gradOutput: upstream, gradInput: gradient, rows: 2, columns: columns)
      }
      return zip(y, upstream).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    }
    checkGradient(x) { x, gradient in
      var y = [Float](repeating: 0, count: n)
      Kernels.logSoftmax(x, &y, rows: 2, columns: columns)
      if let gradient {
        Kernels.logSoftmaxBackward(
          output: y, gradOutput: upstream, gradInput: gradient, rows: 2, columns: columns)
      }
      return zip(y, upstream).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    }
  }
}
