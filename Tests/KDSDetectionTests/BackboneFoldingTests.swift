import KDSDetection
import KDSNN
import KDSTensor
import Testing

@Suite struct BackboneFoldingTests {
  /// Running statistics that are far from 0 and 1, so that a fold that forgets them fails.
  private func stir(_ module: Module) throws {
    for (index, entry) in module.namedBuffers().enumerated() {
      let values = try Initializer(seed: 20, stream: UInt64(index)).uniform(
        entry.tensor.shape, bound: 0.5)
      for channel in 0..<entry.tensor.count {
        let shift: Float = entry.name.hasSuffix("running_var") ? 1 : 0
        entry.tensor.floats[channel] = values.floats[channel] + shift
      }
      entry.tensor.markChanged()
    }
  }

  private func largestDifference(_ a: Tensor, _ b: Tensor) throws -> Float {
    zip(try a.values(), try b.values()).map { abs($0 - $1) }.max() ?? .infinity
  }

  @Test func foldedEqualsUnfolded() throws {
    let backbone = try makeTestBackbone("resnet_small", width: 0.25)
    try stir(backbone)
    backbone.setTraining(false)
    let images = try testImages(2, 48, 48)
    // With gradients wanted the parts run one by one; without, folded.
    let apart = try backbone.features(images)
    let together = try Tape.withoutGrad { try backbone.features(images) }
    for (a, b) in zip(apart, together) {
      let scale = try a.tensor.values().map(abs).max() ?? 0
      #expect(scale > 0.1)
      // Rounding of one more multiplication per weight, through ten convolutions.
      #expect(try largestDifference(a.tensor, b.tensor) <= 1e-5 * max(1, scale))
    }
  }

  @Test func foldFollowsChangesOfWeightsAndStatistics() throws {
    let layer = try ConvBNReLU(3, 8, kernel: 3, Initializer(seed: 1))
    try stir(layer)
    layer.setTraining(false)
    let images = try testImages(1, 9, 9)
    func folded() throws -> Tensor { try Tape.withoutGrad { try layer(images) } }
    var last = try folded()
    for (name, tensor) in layer.namedParameters() + layer.namedBuffers() {
      for index in 0..<tensor.count { tensor.floats[index] += 0.25 }
      tensor.markChanged()
      let now = try folded()
      #expect(try largestDifference(now, last) > 1e-3, "\(name) changed and the fold did not")
      // Tolerance: see above.
      #expect(try largestDifference(now, layer(images)) <= 1e-5)
      last = now
    }
  }

  @Test func trainingModeIsNeverFolded() throws {
    let layer = try ConvBNReLU(3, 8, kernel: 3, Initializer(seed: 1))
    let images = try testImages(4, 9, 9)
    let output = try Tape.withoutGrad { try layer(images) }
    let mean = layer.namedBuffers().first { $0.name == "bn.running_mean" }!.tensor
    #expect(try mean.values().contains { $0 != 0 })
    // Batch statistics: before ReLU every channel has mean 0, so about half the values are positive.
    let share = try output.values().filter { $0 > 0 }.count
    #expect(share > output.count / 4 && share < output.count * 3 / 4)
  }

  @Test func gradientsPassAFrozenFold() throws {
    let layer = try ConvBNReLU(3, 8, kernel: 3, Initializer(seed: 1))
    try stir(layer)
    layer.setTraining(false)
    func gradient() throws -> Tensor {
      let images = try testImages(1, 7, 7)
      images.requiresGrad = true
      let output = try layer(images)
      try Tape.backward(from: output, seed: Tensor(filled: 1, shape: output.shape))
      return images.gradient!
    }
    let apart = try gradient()
    layer.setRequiresGrad(false)
    let together = try gradient()
    // Same sums of 72 products in another order of multiplication.
    #expect(try largestDifference(apart, together) <= 1e-5)
  }
}
