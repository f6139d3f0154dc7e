import KDSDistill
import KDSKernels
import KDSTensor
import Testing

#if canImport(Glibc)
  import Glibc
#endif

@Suite struct VBMFTests {
  private let noisy = [30, 20, 10, 3, 2.8, 2.6, 2.4, 2.2, 2.0, 1.8]
  private let square = [12, 3, 2.8, 2.6, 2.4, 2.2, 2.0, 1.8, 1.6, 1.4]

  /// The expected figures carry six digits.
  private func near(_ a: Double, _ b: Double) -> Bool { abs(a - b) <= 1e-5 * abs(b) }

  @Test func knownCaseOfTenByTwenty() throws {
    let found = try VBMF(singularValues: noisy, rows: 10, columns: 20)
    #expect(found.rank == 3)
    #expect(near(found.noiseVariance, 0.380688))
    #expect(near(found.threshold, 5.20499))
    #expect(near(found.bound, 3.558279))
    #expect(near(found.searched.lowerBound, 0.223))
    #expect(near(found.searched.upperBound, 7.2072))
    #expect(zip(found.shrunk, [29.61823, 19.42524, 8.82509]).allSatisfy { near($0, $1) })
    #expect(found.shrunk.count == 3)
  }

  @Test func knownCaseOfTenByTen() throws {
    let found = try VBMF(singularValues: square, rows: 10, columns: 10)
    #expect(found.rank == 1)
    #expect(near(found.noiseVariance, 0.577655))
    #expect(near(found.threshold, 5.32614))
  }

  @Test func equalSingularValuesAreNoise() throws {
    let values = [Double](repeating: 5, count: 10)
    let found = try VBMF(singularValues: values, rows: 10, columns: 20)
    #expect(found.rank == 0)
    #expect(near(found.noiseVariance, 1.25))
    #expect(found.threshold.isFinite)
  }

  @Test func onlySizesAndSingularValuesMatter() throws {
    let found = try VBMF(singularValues: noisy, rows: 10, columns: 20)
    let turned = try VBMF(singularValues: noisy.reversed(), rows: 20, columns: 10)
    #expect(found == turned)
    let scaled = try VBMF(singularValues: noisy.map { $0 * 7 }, rows: 10, columns: 20)
    #expect(scaled.rank == found.rank)
    // The search stops at the resolution of doubles on a logarithmic scale.
    #expect(abs(scaled.noiseVariance / found.noiseVariance / 49 - 1) < 1e-6)
  }

  /// Zeros of Φ(τ) + Φ(τ / a), computed elsewhere to six digits.
  @Test(arguments: [(1.0, 2.51286), (0.5, 1.78264), (0.1, 0.82221)])
  func exactBound(ratio: Double, tau: Double) throws {
    #expect(abs(VBMF.exactTau(ratio) - tau) < 1e-5)
    let (rows, columns) = (10, Int((10 / ratio).rounded()))
    let found = try VBMF(singularValues: noisy, rows: rows, columns: columns, exactBound: true)
    #expect(near(found.bound, (1 + VBMF.exactTau(ratio)) * (1 + ratio / VBMF.exactTau(ratio))))
  }

  /// 60 × 150, noise of deviation 0.5: the rank is found, the variance within 5 %.
  @Test(arguments: [0, 5, 10])
  func plantedRankIsFound(rank: Int) throws {
    var random = CounterRandom(seed: 41, stream: UInt64(rank))
    let (rows, columns) = (60, 150)
    func normals(_ count: Int, _ deviation: Float) -> [Double] {
      (0..<count).map { _ in Double(random.normal() * deviation) }
    }
    var matrix = Matrix(rows, columns, normals(rows * columns, 0.5))
    if rank > 0 {
      let left = Matrix(rows, rank, normals(rows * rank, 1))
      let planted = left.times(Matrix(rank, columns, normals(rank * columns, 1)))
      for index in matrix.values.indices { matrix.values[index] += planted.values[index] }
    }
    let kernel = TuckerKernel(weights: matrix.values, outputs: rows, inputs: columns, area: 1)
    // The guard keeps one rank for pure noise.
    let ranks = try kernel.estimatedRanks(tucker1: true, exactBound: false)
    #expect(ranks == TuckerRanks(input: nil, output: max(1, rank)))
    let singular = try kernel.singularValuesByOutput()
    let found = try VBMF(singularValues: singular, rows: rows, columns: columns)
    #expect(found.rank == rank)
    #expect(abs(found.noiseVariance / 0.25 - 1) < 0.05)
  }

  @Test func exactlyLowRankAndZeroMatricesAreFinite() throws {
    var values = [Double](repeating: 0, count: 10)
    #expect(try VBMF(singularValues: values, rows: 10, columns: 20).rank == 0)
    values[0] = 3
    values[1] = 2
    let found = try VBMF(singularValues: values, rows: 10, columns: 20)
    #expect(found.rank == 2)
    #expect(found.noiseVariance.isFinite && found.threshold.isFinite)
    #expect(try VBMF(singularValues: [4], rows: 1, columns: 1).rank <= 1)
  }

  @Test func wrongCountsAreRefused() {
    #expect(throws: KDSError.self) { try VBMF(singularValues: [1, 2], rows: 3, columns: 4) }
    #expect(throws: KDSError.self) { try VBMF(singularValues: [], rows: 0, columns: 4) }
    #expect(throws: KDSError.self) { try VBMF(singularValues: [.nan], rows: 1, columns: 4) }
  }
}
