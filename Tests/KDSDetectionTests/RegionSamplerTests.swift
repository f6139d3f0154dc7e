import KDSKernels
import KDSTensor
import Testing

@testable import KDSDetection

/// Which regions the region head is trained on.
@Suite struct RegionSamplerTests {
  private func draw(
    _ proposals: [[Float]], _ boxes: [[Float]], _ labels: [[Int64]], seed: UInt64 = 1,
    change: (inout RoIConfiguration) -> Void = { _ in }
  ) throws -> SampledRegions {
    var configuration = RoIConfiguration()
    change(&configuration)
    let batch = PreparedBatch(
      images: try Tensor.zeros([boxes.count, 3, 8, 8]), sizes: boxes.map { _ in Size2(100, 100) },
      scales: boxes.map { _ in (1, 1) }, boxes: boxes, labels: labels)
    return try RegionSampler(configuration: configuration).draw(
      proposals: proposals, batch: batch, seed: seed)
  }

  /// Boxes inside (0, 0, 10, 10) with IoU h / 10.
  private func proposals(_ heights: [Float]) -> [Float] {
    heights.flatMap { [0, 0, 10, $0] as [Float] }
  }

  private func rows(_ regions: SampledRegions) throws -> [[Float]] {
    let values = try regions.rois.values()
    return (0..<regions.labels.count).map { Array(values[5 * $0..<5 * $0 + 5]) }
  }

  @Test func atMostAQuarterIsPositive() throws {
    let many: [Float] = (0..<200).map { $0 < 100 ? 9 : 1 + Float($0) / 1000 }
    let found = try draw([proposals(many)], [[0, 0, 10, 10]], [[3]])
    #expect(found.labels.count == 128 && found.positives.count == 32)
    #expect(found.labels.filter { $0 == 3 }.count == 32)
    #expect(found.positives == Array(0..<32))
    #expect(found.targets.count == 4 * 32)
    #expect(Set(try rows(found)[32...]).count == 96)
  }

  @Test func fewPositivesAreMadeUpByNegatives() throws {
    let found = try draw(
      [proposals([8] + [Float](repeating: 2, count: 300))], [[0, 0, 10, 10]], [[1]])
    // The proposal and the box itself.
    #expect(found.positives.count == 2 && found.labels.count == 128)
  }

  @Test func theBoxesThemselvesTakePart() throws {
    let found = try draw([[]], [[0, 0, 10, 10, 40, 40, 60, 70]], [[1, 2]]) {
      $0.positive_fraction = 1
    }
    #expect(try rows(found) == [[0, 0, 0, 10, 10], [0, 40, 40, 60, 70]])
    #expect(found.labels == [1, 2] && found.positives == [0, 1])
    #expect(found.targets.allSatisfy { $0 == 0 })
  }

  @Test func halfAnIoUIsPositiveAndBackgroundHasARange() throws {
    let heights: [Float] = [5, 4.999, 1, 0.999]
    func kept(_ low: Float) throws -> (positive: [Float], negative: [Float]) {
      let found = try draw([proposals(heights)], [[0, 0, 10, 10]], [[1]]) {
        $0.negative_low = low
        $0.positive_fraction = 0.5
      }
      let all = try rows(found).map { $0[4] }
      let count = found.positives.count
      return (Array(all[..<count]), Array(all[count...]))
    }
    // Faster R-CNN: [0, 0.5); Fast R-CNN: [0.1, 0.5).
    #expect(try kept(0).positive == [5, 10] && kept(0).negative == [4.999, 1, 0.999])
    #expect(try kept(0.1).negative == [4.999, 1])
  }

  @Test func targetsAreInUnitsOfTheDeviations() throws {
    let box: [Float] = [10, 10, 30, 50]
    let found = try draw([[14, 12, 34, 52]], [box], [[2]]) { $0.positive_fraction = 1 }
    #expect(found.labels == [2, 2])
    // 4 / 20 and 2 / 40 to the left and up, in tenths; equal size.
    for (a, b) in zip(found.targets, [-2, -0.5, 0, 0] as [Float]) { #expect(abs(a - b) < 1e-5) }
    let plain = try draw([[14, 12, 34, 52]], [box], [[2]]) {
      $0.positive_fraction = 1
      $0.box_std = [1, 1, 1, 1]
    }
    for (a, b) in zip(plain.targets, [-0.2, -0.05, 0, 0] as [Float]) { #expect(abs(a - b) < 1e-6) }
  }

  @Test func imagesKeepTheirOwnBoxes() throws {
    let found = try draw(
      [[0, 0, 10, 9], [0, 0, 10, 9, 70, 70, 90, 90], [1, 1, 5, 5]],
      [[0, 0, 10, 10], [70, 70, 90, 92], []], [[1], [2], []]
    ) { $0.positive_fraction = 1 }
    let images = try rows(found).map { $0[0] }
    #expect(images == [0, 0, 1, 1, 1, 2])
    #expect(found.labels == [1, 1, 2, 2, 0, 0])
    #expect(found.positives == [0, 1, 2, 3])
    #expect(found.targets.count == 16)
  }

  @Test func nothingAtAllIsNoRegion() throws {
    let found = try draw([[], []], [[], []], [[], []])
    #expect(found.rois.shape == [0, 5] && found.labels.isEmpty && found.targets.isEmpty)
  }

  @Test func theDrawFollowsTheSeedAndTheImage() throws {
    let many = proposals((0..<400).map { 1 + Float($0) / 1000 })
    func negatives(_ seed: UInt64) throws -> [[Float]] {
      let found = try draw([many, many], [[], []], [[], []], seed: seed)
      let all = try rows(found).map { $0[4] }
      return [Array(all[..<128]), Array(all[128...])]
    }
    #expect(try negatives(1) == negatives(1))
    #expect(try negatives(1) != negatives(2))
    let pair = try negatives(1)
    #expect(pair[0] != pair[1])
  }
}
