import KDSDetection
import KDSDistill
import KDSNN
import KDSTensor
import Testing

@Suite struct TuckerSizeTests {
  private typealias Row = (
    name: String, inputs: Int, outputs: Int, kernel: Int, groups: Int, ranks: TuckerRanks,
    weights: Int
  )

  /// AlexNet* of Kim et al. 2016, table 2, recounted.
  private static let alexnet: [Row] = [
    ("conv1", 3, 96, 11, 1, TuckerRanks(input: nil, output: 26), 11_934),
    ("conv2", 48, 128, 5, 2, TuckerRanks(input: 25, output: 59), 91_254),
    ("conv3", 256, 384, 3, 1, TuckerRanks(input: 105, output: 112), 175_728),
    ("conv4", 192, 192, 3, 2, TuckerRanks(input: 49, output: 46), 77_052),
    ("conv5", 192, 128, 3, 2, TuckerRanks(input: 40, output: 34), 48_544),
    ("fc6", 256, 4096, 6, 1, TuckerRanks(input: 210, output: 584), 6_860_864),
    ("fc7", 4096, 4096, 1, 1, TuckerRanks(input: nil, output: 301), 2_465_792),
    ("fc8", 4096, 1000, 1, 1, TuckerRanks(input: nil, output: 195), 993_720),
  ]

  private func shape(_ row: Row) -> KernelShape {
    KernelShape(
      inputs: row.inputs, outputs: row.outputs, kernel: Size2(row.kernel), groups: row.groups)
  }

  @Test func publishedAlexNetCounts() {
    for row in Self.alexnet { #expect(shape(row).weights(row.ranks) == row.weights, "\(row.name)") }
    #expect(Self.alexnet.reduce(0) { $0 + shape($1).weights($1.ranks) } == 10_724_888)
  }

  /// Kim's VGG-16 table is not consistent with its ranks; these are counted from the ranks.
  @Test(arguments: [
    (128, 256, 58, 117, 98_450), (256, 256, 138, 132, 233_064), (256, 512, 148, 194, 395_624),
    (512, 512, 172, 170, 438_264), (512, 512, 120, 120, 252_480),
  ])
  func vgg16CountsFromTheRanks(inputs: Int, outputs: Int, r3: Int, r4: Int, weights: Int) {
    let shape = KernelShape(inputs: inputs, outputs: outputs, kernel: Size2(3))
    #expect(shape.weights(TuckerRanks(input: r3, output: r4)) == weights)
  }

  @Test func alexNetOfThePaperIsBuiltWithTheseCounts() throws {
    var configuration = BackboneConfiguration()
    configuration.name = "alexnet"
    let backbone = try makeBackbone(configuration, Initializer(seed: 1))
    let record = SurgeryRecord(
      layers: Self.alexnet.prefix(5).map {
        FactorizedLayer(layer: "features.\($0.name)", ranks: $0.ranks)
      })
    try applyStructure(record, to: backbone)
    let weights = backbone.namedParameters().filter { $0.name.hasSuffix("weight") }
    for row in Self.alexnet.prefix(5) {
      let own = weights.filter { $0.name.hasPrefix("features.\(row.name).") }
      #expect(own.reduce(0) { $0 + $1.tensor.count } == row.weights, "\(row.name)")
    }
    let biases = backbone.namedParameters().filter { $0.name.hasSuffix("bias") }
    #expect(biases.map(\.name) == (1...5).map { "features.conv\($0).last.bias" })
  }

  @Test func compressionAndSpeedup() {
    let shape = KernelShape(inputs: 256, outputs: 384, kernel: Size2(3))
    let ranks = TuckerRanks(input: 105, output: 112)
    let map = Size2(13)
    let compression = shape.compression(ranks)
    #expect(compression == Double(9 * 256 * 384) / 175_728)
    // With equal maps every part scales alike.
    #expect(abs(shape.speedup(ranks, input: map, output: map) / compression - 1) < 1e-12)
    let bound = Double(256 * 384) / Double(105 * 112)
    #expect(compression < bound)
    #expect(shape.speedup(ranks, input: map, output: map) < bound)
    // With stride 2 the first convolution runs on four times the pixels.
    let strided = shape.speedup(ranks, input: Size2(26), output: map)
    let expected = Double(9 * 256 * 384) / Double(4 * 256 * 105 + 9 * 105 * 112 + 384 * 112)
    #expect(abs(strided - expected) < 1e-12)
  }
}
