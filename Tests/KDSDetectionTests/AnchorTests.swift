import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

@testable import KDSDetection

@Suite struct AnchorTests {
  @Test(arguments: ["published", "odd"])
  func gridsEqualTorchvision(name: String) throws {
    let fixture = try Fixture("detection")
    let generator = try AnchorGenerator(
      sizes: fixture.floats("anchors_\(name)/sizes"),
      ratios: fixture.floats("anchors_\(name)/ratios"))
    let (height, width, stride) = name == "odd" ? (3, 4, 8) : (2, 3, 16)
    // Rounded numbers: equal or wrong.
    #expect(generator.baseAnchors == (try fixture.floats("anchors_\(name)/base")))
    #expect(generator.count == 9)
    #expect(
      generator.grid(height: height, width: width, stride: stride)
        == (try fixture.floats("anchors_\(name)/grid")))
  }

  @Test func badSizesAreRefused() {
    for (sizes, ratios): ([Float], [Float]) in [
      ([], [1]), ([8], []), ([0], [1]), ([8], [-1]), ([.nan], [1]), ([8], [.infinity]),
    ] {
      #expect(throws: KDSError.self) { try AnchorGenerator(sizes: sizes, ratios: ratios) }
    }
  }
}

/// Which anchors are positive, negative, or left out.
@Suite struct AnchorSamplerTests {
  private func sampler(
    batch: Int = 256, change: (inout RPNConfiguration) -> Void = { _ in }
  ) -> AnchorSampler {
    var configuration = RPNConfiguration()
    configuration.batch = batch
    change(&configuration)
    return AnchorSampler(configuration: configuration)
  }

  private func draw(
    _ sampler: AnchorSampler, _ anchors: [Float], _ boxes: [Float], seed: UInt64 = 1,
    size: Size2 = Size2(100, 100)
  ) -> AnchorSampler.Draw {
    var random = CounterRandom(seed: seed, stream: RandomStream.anchors(image: 0))
    return sampler.draw(anchors: anchors, boxes: boxes, size: size, random: &random)
  }

  /// A box of 10 x 10 and anchors inside it of 10 x h: the IoU is exactly h / 10.
  @Test func exactThresholds() {
    // A perfect anchor first, so that no other is the best of the box.
    let heights: [Float] = [10, 7, 6.999, 3, 2.999, 5]
    let anchors: [Float] = heights.flatMap { [0, 0, 10, $0] as [Float] }
    let found = draw(sampler(), anchors, [0, 0, 10, 10])
    // 0.7 is positive; 0.3 is left out, and so is all between.
    #expect(found.positives == [0, 1])
    #expect(found.negatives == [4])
  }

  @Test func theBestAnchorsOfABoxArePositiveTiesIncluded() {
    // Two anchors with IoU 0.25, one with 0.2, one with nothing.
    let anchors: [Float] = [0, 0, 5, 5, 5, 5, 10, 10, 0, 0, 4, 5, 40, 40, 50, 50]
    let found = draw(sampler(), anchors, [0, 0, 10, 10])
    #expect(found.positives == [0, 1])
    #expect(found.negatives == [2, 3])
  }

  /// A box that no anchor touches makes nothing positive (torchvision: every untouched anchor).
  @Test func aBoxOutOfReachMakesNoPositive() {
    let found = draw(sampler(), [0, 0, 5, 5, 10, 10, 20, 20], [60, 60, 90, 90])
    #expect(found.positives.isEmpty && found.targets.isEmpty && found.negatives == [0, 1])
  }

  @Test func anImageWithoutBoxesIsAllNegative() {
    let anchors: [Float] = (0..<10).flatMap { [0, 0, 9 + Float($0), 9] as [Float] }
    let found = draw(sampler(batch: 6), anchors, [])
    #expect(found.positives.isEmpty && found.targets.isEmpty)
    #expect(found.negatives.count == 6 && Set(found.negatives).count == 6)
  }

  @Test func neverMorePositivesThanTheirShare() {
    // 40 perfect anchors and 60 far ones.
    let anchors: [Float] = (0..<100).flatMap {
      ($0 < 40 ? [0, 0, 10, 10] : [50, 50, 60, 60]) as [Float]
    }
    for (batch, positives, negatives) in [(16, 8, 8), (15, 7, 8), (256, 40, 60), (100, 40, 60)] {
      let found = draw(sampler(batch: batch), anchors, [0, 0, 10, 10])
      #expect(found.positives.count == positives && found.negatives.count == negatives)
      #expect(found.positives.allSatisfy { $0 < 40 } && found.negatives.allSatisfy { $0 >= 40 })
      #expect(Set(found.positives).count == positives)
    }
    // With few positives negatives fill the batch.
    let few = draw(sampler(batch: 50), Array(anchors[39 * 4..<400]), [0, 0, 10, 10])
    #expect(few.positives == [0] && few.negatives.count == 49)
  }

  @Test func anchorsAcrossTheBorderAreLeftOut() {
    let anchors: [Float] = [-1, 0, 10, 10, 0, 0, 10, 10, 90, 90, 101, 100, 90, 90, 100, 100]
    #expect(draw(sampler(), anchors, []).negatives == [1, 3])
    let all = draw(sampler { $0.drop_border_anchors = false }, anchors, [])
    #expect(all.negatives == [0, 1, 2, 3])
    // Positives keep their place among all anchors, and so do their targets.
    let found = draw(sampler(), anchors, [92, 90, 100, 100])
    #expect(found.positives == [3])
    // The centre lies 1 px to the right of an anchor of 10 x 10, the width is 8.
    #expect(abs(found.targets[0] - 0.1) < 1e-6 && found.targets[1] == 0)
    #expect(abs(found.targets[2] + 0.223_143_55) < 1e-6 && found.targets[3] == 0)
    #expect(draw(sampler(), [-5, -5, 200, 200], [0, 0, 10, 10]).negatives.isEmpty)
  }

  @Test func theDrawFollowsTheSeed() {
    let anchors: [Float] = (0..<100).flatMap { [0, 0, 10 + Float($0) / 10, 10] as [Float] }
    let boxes: [Float] = [50, 50, 60, 60]
    let first = draw(sampler(batch: 20), anchors, boxes)
    #expect(first.negatives == draw(sampler(batch: 20), anchors, boxes).negatives)
    #expect(first.negatives != draw(sampler(batch: 20), anchors, boxes, seed: 2).negatives)
  }
}
