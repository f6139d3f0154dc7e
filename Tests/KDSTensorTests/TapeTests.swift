import KDSKernels
import KDSTensor
import KDSTestSupport
import Testing

@Suite struct TapeTests {
  /// A small network with a loss: what a training step does to memory.
  private static func step(_ weights: [Tensor], _ input: Tensor, _ labels: Tensor) throws {
    for weight in weights { weight.gradient = nil }
    let options = ConvolutionOptions(padding: Padding(1), activation: .relu)
    var map = try input.conv2d(weights[0], options)
    map = try map.addingReLU(map.conv2d(weights[1], options))
    let pooled = try map.mean(axes: [2, 3])
    let logits = try pooled.matmul(weights[2]).adding(weights[3])
    try Tape.backward(from: try logits.crossEntropy(labels))
  }

  private static func network() throws -> ([Tensor], Tensor, Tensor) {
    let shapes = [[16, 3, 3, 3], [16, 16, 3, 3], [16, 5], [5]]
    let weights = try shapes.map { try Tensor(filled: 0.01, shape: $0) }
    for weight in weights { weight.requiresGrad = true }
    let input = try Tensor(filled: 0.5, shape: [2, 3, 20, 20])
    return (weights, input, try integers([1, 4], [2]))
  }

  @Test func aSteadyStepTakesNoMemoryFromTheSystem() throws {
    let (weights, input, labels) = try Self.network()
    for _ in 0..<3 { try Self.step(weights, input, labels) }
    let before = MemoryPool.statistics.systemAllocations
    for _ in 0..<5 { try Self.step(weights, input, labels) }
    #expect(MemoryPool.statistics.systemAllocations == before)
  }

  @Test func everythingIsGivenBack() throws {
    // Once, so that memory kept on purpose (primitives) is there before.
    try { try Self.step(Self.network().0, Self.network().1, Self.network().2) }()
    let before = MemoryPool.statistics.bytesInUse
    try {
      let (weights, input, labels) = try Self.network()
      try Self.step(weights, input, labels)
      // A second tape that nobody walks back.
      _ = try input.conv2d(weights[0]).relu().summed()
    }()
    #expect(MemoryPool.statistics.bytesInUse == before)
  }

  @Test func aLongChainIsFreedWithoutRecursion() throws {
    let before = MemoryPool.statistics.bytesInUse
    try {
      let start = try tensor([1], [1])
      start.requiresGrad = true
      var chain = start
      for _ in 0..<100_000 { chain = try chain.adding(1) }
      #expect(chain.item == 100_001)
    }()
    #expect(MemoryPool.statistics.bytesInUse == before)
  }

  @Test func aLongChainIsWalkedBack() throws {
    let before = MemoryPool.statistics.bytesInUse
    try {
      let start = try tensor([2], [1])
      start.requiresGrad = true
      var chain = start
      for _ in 0..<100_000 { chain = try chain.multiplied(by: 1).adding(start) }
      try Tape.backward(from: chain)
      #expect(try start.gradient?.values() == [100_001])
    }()
    #expect(MemoryPool.statistics.bytesInUse == before)
  }

  @Test func gradientsAccumulateUntilCleared() throws {
    let x = try tensor([3], [1])
    x.requiresGrad = true
    for _ in 0..<2 { try Tape.backward(from: x.squared().summed()) }
    #expect(try x.gradient?.values() == [12])
  }

  @Test func withoutGradRecordsNothing() throws {
    let x = try tensor([3], [1])
    x.requiresGrad = true
    let y = try Tape.withoutGrad { try x.squared() }
    #expect(!y.isTracked)
    #expect(throws: KDSError.self) { try Tape.backward(from: y) }
  }

  @Test func aTapeIsWalkedOnce() throws {
    let x = try tensor([3], [1])
    x.requiresGrad = true
    let y = try x.squared().summed()
    try Tape.backward(from: y)
    #expect(throws: KDSError.self) { try Tape.backward(from: y) }
    #expect(throws: KDSError.self) { try Tape.backward(from: tensor([1, 2], [2]).relu()) }
  }

  @Test func aDiamondSumsBothWays() throws {
    let x = try tensor([2], [1])
    x.requiresGrad = true
    let shared = try x.squared()
    let y = try shared.multiplied(by: 3).adding(shared.multiplied(by: x))
    try Tape.backward(from: y)
    // d(3x² + x³) = 6x + 3x².
    #expect(try x.gradient?.values() == [24])
  }
}
