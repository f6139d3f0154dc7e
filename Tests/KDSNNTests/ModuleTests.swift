import KDSNN
import KDSTensor
import Testing

@Suite struct ModuleTests {
  private func tree() throws -> Module {
    let root = Module()
    let make = Initializer(seed: 1)
    let body = root.child("body", Module())
    body.child("conv", try Conv2d(3, 8, kernel: 3, make))
    body.child("norm", try BatchNorm2d(channels: 8))
    root.child("head", try Linear(8, 2, make))
    return root
  }

  @Test func namesAreDottedPathsInOrder() throws {
    let root = try tree()
    #expect(
      root.namedParameters().map(\.name) == [
        "body.conv.weight", "body.conv.bias", "body.norm.weight", "body.norm.bias", "head.weight",
        "head.bias",
      ])
    #expect(
      root.namedBuffers().map(\.name) == ["body.norm.running_mean", "body.norm.running_var"])
    #expect(
      root.namedModules().map(\.name) == ["", "body", "body.conv", "body.norm", "head"])
    #expect(root.module(at: "body.norm") is BatchNorm2d && root.module(at: "") === root)
    #expect(root.module(at: "body.nothing") == nil)
  }

  @Test func partsAreReplacedByName() throws {
    let root = try tree()
    try root.replaceModule(at: "body.conv", with: Conv2d(3, 4, kernel: 1, Initializer(seed: 2)))
    #expect(root.namedParameters()[0].tensor.shape == [4, 3, 1, 1])
    let body = try #require(root.module(at: "body"))
    let image = try Tensor.zeros([1, 3, 5, 5])
    #expect(try body.layer("conv")(image).shape[1] == 4)
    for path in ["body.nothing", "nothing.conv", ""] {
      #expect(throws: KDSError.self, "\(path)") {
        try root.replaceModule(at: path, with: Module())
      }
    }
    #expect(throws: KDSError.self) { try root.layer("body") }
  }

  @Test func trainingAndLearningReachEverything() throws {
    let root = try tree()
    root.setTraining(false)
    #expect(root.namedModules().allSatisfy { !$0.module.isTraining })
    for entry in root.namedParameters() { entry.tensor.gradient = try Tensor.zeros([1]) }
    root.setRequiresGrad(false)
    #expect(
      root.namedParameters().allSatisfy { !$0.tensor.requiresGrad && $0.tensor.gradient == nil })
    root.setRequiresGrad(true)
    #expect(root.namedParameters().allSatisfy { $0.tensor.requiresGrad })
    for entry in root.namedParameters() { entry.tensor.gradient = try Tensor.zeros([1]) }
    root.clearGradients()
    #expect(root.namedParameters().allSatisfy { $0.tensor.gradient == nil })
  }

  @Test func arithmeticIsCounted() throws {
    let make = Initializer(seed: 1)
    let root = Module()
    let convolution = root.child("conv", try Conv2d(4, 8, kernel: 3, groups: 2, make))
    let linear = root.child("fc", try Linear(8, 3, make))
    let costs = try FLOPCounter.count(root) {
      _ = try convolution(Tensor.zeros([2, 4, 5, 6]))
      _ = try linear(Tensor.zeros([7, 8]))
      _ = try linear(Tensor.zeros([1, 8]))
    }
    #expect(costs.map(\.name) == ["conv", "fc"] && costs.map(\.calls) == [1, 2])
    // Two per multiply-add: N · K · H · W · (C / groups) · k², and rows · in · out.
    #expect(costs[0].flops == Double(2 * 2 * 8 * 5 * 6 * 2 * 9))
    #expect(costs[1].flops == Double(2 * (7 + 1) * 8 * 3))
  }
}
