import KDSTensor

/// A kernel (T, S, D) of one group, D = kernel area, in double precision, with its two unfoldings.
package struct TuckerKernel {
  package let outputs, inputs, area: Int
  /// T × (S D): mode 4.
  package let byOutput: Matrix
  /// S × (T D): mode 3.
  package let byInput: Matrix

  /// - Parameter weights: (T, S, D), row-major.
  package init(weights: [Double], outputs: Int, inputs: Int, area: Int) {
    (self.outputs, self.inputs, self.area) = (outputs, inputs, area)
    byOutput = Matrix(outputs, inputs * area, weights)
    byInput = Self.swapped(byOutput, outputs, inputs, area)
  }

  /// One group of a weight (K, C/groups, kh, kw), or of (out, in) with `area` innermost.
  package init(_ weight: Tensor, group: Int, groups: Int, inputs: Int, area: Int) {
    let outputs = weight.shape[0] / groups
    let count = outputs * inputs * area
    let from = UnsafeBufferPointer(start: weight.floats + group * count, count: count)
    self.init(weights: from.map(Double.init), outputs: outputs, inputs: inputs, area: area)
  }

  /// (A, B, D) to (B, A, D).
  package static func swapped(_ matrix: Matrix, _ a: Int, _ b: Int, _ area: Int) -> Matrix {
    var result = [Double](repeating: 0, count: a * b * area)
    matrix.values.withUnsafeBufferPointer { from in
      result.withUnsafeMutableBufferPointer { to in
        for first in 0..<a {
          for second in 0..<b {
            let (source, target) = ((first * b + second) * area, (second * a + first) * area)
            for index in 0..<area { to[target + index] = from[source + index] }
          }
        }
      }
    }
    return Matrix(b, a * area, result)
  }

  /// Ranks by VBMF of the two unfoldings, at least 1; `tucker1` asks for the output side alone.
  package func estimatedRanks(tucker1: Bool, exactBound: Bool) throws -> TuckerRanks {
    func rank(_ matrix: Matrix) throws -> Int {
      let estimate = try VBMF(
        singularValues: Self.singularValues(matrix), rows: matrix.rows, columns: matrix.columns,
        exactBound: exactBound)
      return max(1, estimate.rank)
    }
    return TuckerRanks(input: tucker1 ? nil : try rank(byInput), output: try rank(byOutput))
  }

  /// Of the unfolding by outputs, descending.
  package func singularValuesByOutput() throws -> [Double] { try Self.singularValues(byOutput) }

  private static func singularValues(_ matrix: Matrix) throws -> [Double] {
    let system = try Eigensystem(symmetric: matrix.gram())
    return system.values.prefix(min(matrix.rows, matrix.columns)).map { max(0, $0).squareRoot() }
  }
}

/// Tucker-2 decomposition on the channel modes (Kim et al. 2016): K = C ×₃ U3 ×₄ U4, by HOSVD and then
/// higher-order orthogonal iteration. Without an input rank it is Tucker-1, the truncated SVD.
package struct TuckerFactors {
  /// U3ᵀ, R3 × S, orthonormal rows; nil for Tucker-1.
  package private(set) var input: Matrix?
  /// U4ᵀ, R4 × T, orthonormal rows.
  package private(set) var output: Matrix
  /// R4 × (R3 D), or R4 × (S D) for Tucker-1.
  package private(set) var core: Matrix
  /// Relative error ‖K − K̂‖ / ‖K‖ after HOSVD and after each iteration.
  package private(set) var errors: [Double]

  package var error: Double { errors.last ?? 0 }

  /// - Parameters:
  ///   - iterations: at most, after HOSVD; sides above 2048 take at most 5, whose eigenproblems cost
  ///     minutes each.
  ///   - tolerance: stops when the relative change of the error is below.
  package init(
    _ kernel: TuckerKernel, _ ranks: TuckerRanks, iterations: Int = 50, tolerance: Double = 1e-6
  ) throws {
    let norm = kernel.byOutput.squaredNorm
    output = try Self.leading(kernel.byOutput, ranks.output)
    guard let inputRank = ranks.input else {
      core = output.times(kernel.byOutput)
      errors = [Self.error(core, norm)]
      return
    }
    var basis = try Self.leading(kernel.byInput, inputRank)
    var projected = Self.project(kernel, basis)
    core = output.times(projected)
    errors = [Self.error(core, norm)]
    let most = max(kernel.inputs, kernel.outputs) > 2048 ? min(iterations, 5) : iterations
    for _ in 0..<max(0, most) {
      let reduced = TuckerKernel.swapped(
        output.times(kernel.byOutput), ranks.output, kernel.inputs, kernel.area)
      basis = try Self.leading(reduced, inputRank)
      projected = Self.project(kernel, basis)
      output = try Self.leading(projected, ranks.output)
      core = output.times(projected)
      errors.append(Self.error(core, norm))
      let (before, now) = (errors[errors.count - 2], error)
      if before - now <= tolerance * max(before, 1e-12) { break }
    }
    input = basis
  }

  /// K ×₃ U3ᵀ as T × (R3 D).
  private static func project(_ kernel: TuckerKernel, _ basis: Matrix) -> Matrix {
    TuckerKernel.swapped(basis.times(kernel.byInput), basis.rows, kernel.outputs, kernel.area)
  }

  private static func leading(_ unfolding: Matrix, _ rank: Int) throws -> Matrix {
    try Eigensystem(symmetric: unfolding.gram()).vectors.prefix(rank)
  }

  /// sqrt(1 − ‖C‖² / ‖K‖²); a kernel of zeros has none.
  private static func error(_ core: Matrix, _ norm: Double) -> Double {
    norm > 0 ? max(0, 1 - core.squaredNorm / norm).squareRoot() : 0
  }

  /// The kernel that the factors stand for, T × (S D).
  package func reconstructed(inputs: Int, area: Int) -> Matrix {
    guard let input else { return output.transposed().times(core) }
    let byRank = TuckerKernel.swapped(core, core.rows, input.rows, area)
    let expanded = input.transposed().times(byRank)
    return output.transposed().times(TuckerKernel.swapped(expanded, inputs, core.rows, area))
  }
}
