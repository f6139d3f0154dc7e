import KDSDistill
import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

/// A model of one layer, which surgery replaces.
private final class Holder: Module {
  init(_ layer: any UnaryLayer) {
    super.init()
    child("part", layer as Module)
  }

  func callAsFunction(_ input: Tensor) throws -> Tensor { try layer("part")(input) }
}

@Suite struct TuckerLayerTests {
  private struct Geometry {
    var inputs, outputs, kernel, stride, padding, groups: Int
  }

  private static let geometries = [
    Geometry(inputs: 6, outputs: 8, kernel: 3, stride: 1, padding: 1, groups: 1),
    Geometry(inputs: 6, outputs: 10, kernel: 5, stride: 2, padding: 2, groups: 1),
    Geometry(inputs: 8, outputs: 12, kernel: 3, stride: 2, padding: 0, groups: 2),
    Geometry(inputs: 32, outputs: 32, kernel: 3, stride: 1, padding: 1, groups: 2),
  ]

  private func convolution(_ g: Geometry) throws -> Conv2d {
    let shape = [g.outputs, g.inputs / g.groups, g.kernel, g.kernel]
    return Conv2d(
      weight: try pattern(shape, key: 1), bias: try pattern([g.outputs], key: 2),
      options: ConvolutionOptions(
        stride: Size2(g.stride), padding: Padding(g.padding), groups: g.groups, activation: .relu))
  }

  private func largestDifference(_ a: Tensor, _ b: Tensor) throws -> Float {
    #expect(a.shape == b.shape)
    return zip(try a.values(), try b.values()).map { abs($0 - $1) }.max() ?? .infinity
  }

  @Test(arguments: 0..<4)
  func chainOfThreeEqualsOneConvolutionAtFullRank(index: Int) throws {
    let g = Self.geometries[index]
    let conv = try convolution(g)
    let holder = Holder(conv)
    let ranks = TuckerRanks(input: g.inputs / g.groups, output: g.outputs / g.groups)
    let report = try tucker(holder, TuckerOptions(ranks: .explicit(["part": ranks])))
    #expect(holder.childModule("part") is TuckerConv2d)
    #expect(report.layers[0].relativeError < 1e-6)
    let images = try pattern([2, g.inputs, 11, 13], key: 3)
    // Single precision through three convolutions of up to 300 products each; values are of size 1.
    #expect(try largestDifference(holder(images), conv(images)) < 5e-5)
  }

  /// At lower ranks the three convolutions are the convolution with the reconstructed kernel.
  @Test func chainEqualsTheReconstructedKernel() throws {
    let g = Self.geometries[1]
    let conv = try convolution(g)
    let ranks = TuckerRanks(input: 3, output: 4)
    let kernel = TuckerKernel(conv.weight, group: 0, groups: 1, inputs: 6, area: 25)
    let made = try TuckerFactors(kernel, ranks).reconstructed(inputs: 6, area: 25)
    let weight = try Tensor(made.values.map(Float.init), shape: conv.weight.shape)
    let reference = Conv2d(weight: weight, bias: conv.bias, options: conv.options)
    let holder = Holder(conv)
    _ = try tucker(holder, TuckerOptions(ranks: .explicit(["part": ranks])))
    let images = try pattern([2, 6, 11, 13], key: 3)
    // As above.
    #expect(try largestDifference(holder(images), reference(images)) < 5e-5)
    #expect(try largestDifference(holder(images), conv(images)) > 1e-2)
  }

  @Test func linearLayersBecomeTwo() throws {
    let linear = Linear(
      weight: try pattern([20, 30], key: 4), bias: try pattern([20], key: 5), activation: .relu)
    let holder = Holder(linear)
    let ranks = TuckerRanks(input: nil, output: 20)
    _ = try tucker(holder, TuckerOptions(ranks: .explicit(["part": ranks])))
    #expect(holder.childModule("part") is SVDLinear)
    let rows = try pattern([7, 30], key: 6)
    #expect(try largestDifference(holder(rows), linear(rows)) < 5e-6)
    let names = ["part.first.weight", "part.last.weight", "part.last.bias"]
    #expect(holder.namedParameters().map(\.name) == names)
    let bad = TuckerRanks(input: 2, output: 4)
    #expect(throws: KDSError.self) {
      try tucker(Holder(linear), TuckerOptions(ranks: .explicit(["part": bad])))
    }
  }

  @Test func linearLayerOnAMapIsAConvolution() throws {
    let linear = Linear(weight: try pattern([20, 6 * 9], key: 4), bias: try pattern([20], key: 5))
    let holder = Holder(linear)
    let options = TuckerOptions(
      ranks: .explicit(["part": TuckerRanks(input: 6, output: 20)]), maps: ["part": Size2(3)])
    let report = try tucker(holder, options)
    #expect(holder.childModule("part") is TuckerLinear)
    let rows = try pattern([5, 54], key: 6)
    #expect(try largestDifference(holder(rows), linear(rows)) < 5e-6)
    #expect(try holder(Tensor.zeros([0, 54])).shape == [0, 20])
    #expect(throws: KDSError.self) { try holder(Tensor.zeros([2, 53])) }
    #expect(report.record.layers[0].map == [3, 3])
  }

  @Test func frozenLayersStayFrozenAndGradientsFlowOtherwise() throws {
    let g = Self.geometries[0]
    let ranks = TuckerRanks(input: 2, output: 3)
    let options = TuckerOptions(ranks: .explicit(["part": ranks]))
    let frozen = Holder(try convolution(g))
    frozen.setRequiresGrad(false)
    _ = try tucker(frozen, options)
    #expect(frozen.namedParameters().allSatisfy { !$0.tensor.requiresGrad })

    let learning = Holder(try convolution(g))
    _ = try tucker(learning, options)
    let output = try learning(pattern([1, 6, 9, 9], key: 3))
    try Tape.backward(from: output, seed: Tensor(filled: 1, shape: output.shape))
    for (name, tensor) in learning.namedParameters() {
      let gradient = try #require(tensor.gradient, "\(name)")
      #expect(try gradient.values().contains { $0 != 0 }, "\(name)")
    }
  }
}
