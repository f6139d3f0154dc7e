import KDSNN
import KDSTensor

/// What surgery did to a model: enough to give a fresh model the same structure, without weights.
public struct SurgeryRecord: Codable, Equatable {
  /// Factorized layers.
  public var layers: [FactorizedLayer]
  /// Convolutions of signs.
  public var binary: [BinaryLayer]
  /// Quantizers behind feature maps.
  public var quantizers: [RecordedQuantizer]

  public init(
    layers: [FactorizedLayer] = [], binary: [BinaryLayer] = [],
    quantizers: [RecordedQuantizer] = []
  ) {
    (self.layers, self.binary, self.quantizers) = (layers, binary, quantizers)
  }

  /// Both surgeries, one after the other.
  public func followed(by other: SurgeryRecord) -> SurgeryRecord {
    SurgeryRecord(
      layers: layers + other.layers, binary: binary + other.binary,
      quantizers: quantizers + other.quantizers)
  }
}

/// One factorized layer.
public struct FactorizedLayer: Codable, Equatable {
  /// Dotted name in the model.
  public var layer: String
  public var ranks: TuckerRanks
  /// (height, width) of the flattened map that a linear layer reads, if it was taken for a convolution.
  public var map: [Int]?

  public init(layer: String, ranks: TuckerRanks, map: [Int]? = nil) {
    self.layer = layer
    self.ranks = ranks
    self.map = map
  }
}

/// Gives a freshly built model the recorded structure, so that the weights of the changed model can be
/// loaded: factorized layers (filled with zeros), convolutions of signs, quantizers of maps.
///
/// - Throws: `KDSError.format` when the model has no such layer, `KDSError.argument` for ranks that do not fit.
public func applyStructure(_ record: SurgeryRecord, to model: Module) throws {
  for entry in record.layers {
    guard let module = model.module(at: entry.layer),
      let target = try SurgeryTarget(entry.layer, module, map: entry.map.map(mapSize))
    else {
      throw KDSError.format(
        "surgery: the model has no convolution or linear layer \"\(entry.layer)\"")
    }
    try model.replaceModule(at: entry.layer, with: target.emptyReplacement(entry.ranks))
  }
  for entry in record.binary { try entry.apply(to: model) }
  for entry in record.quantizers { try entry.apply(to: model) }
}

private func mapSize(_ sides: [Int]) throws -> Size2 {
  guard sides.count == 2, sides.allSatisfy({ (1...1024).contains($0) }) else {
    throw KDSError.format("surgery: a map has two sides from 1 to 1024, not \(sides)")
  }
  return Size2(sides[0], sides[1])
}

/// A layer that can be factorized, and how it looks to the factorization.
struct SurgeryTarget {
  let name: String
  let module: Module
  let weight: Tensor
  let shape: KernelShape
  /// Set for a linear layer that is taken for a convolution over its flattened map.
  let map: Size2?
  /// Whether this is the model's first convolution.
  var isFirst = false

  /// nil for what is neither a convolution nor a linear layer.
  init?(_ name: String, _ module: Module, map: Size2? = nil) throws {
    self.name = name
    self.module = module
    if let conv = module as? Conv2d {
      guard map == nil else {
        throw KDSError.argument("surgery: \"\(name)\" is a convolution and reads no flattened map")
      }
      let (size, groups) = (conv.weight.shape, conv.options.groups)
      weight = conv.weight
      self.map = nil
      shape = KernelShape(
        inputs: size[1], outputs: size[0] / groups, kernel: Size2(size[2], size[3]), groups: groups)
    } else if let linear = module as? Linear {
      let (outputs, inputs) = (linear.weight.shape[0], linear.weight.shape[1])
      let kernel = map ?? Size2(1)
      guard inputs % (kernel.height * kernel.width) == 0 else {
        throw KDSError.argument(
          "surgery: the \(inputs) inputs of \"\(name)\" are not channels of a \(kernel) map")
      }
      weight = linear.weight
      self.map = map
      shape = KernelShape(
        inputs: inputs / (kernel.height * kernel.width), outputs: outputs, kernel: kernel)
    } else {
      return nil
    }
  }

  var hasBias: Bool { (module as? Conv2d)?.bias != nil || (module as? Linear)?.bias != nil }

  /// One group of the weight in double precision.
  func kernel(group: Int) -> TuckerKernel {
    TuckerKernel(
      weight, group: group, groups: shape.groups, inputs: shape.inputs, area: shape.area)
  }

  /// The factorized layer with zeros; what was frozen stays frozen.
  func emptyReplacement(_ ranks: TuckerRanks) throws -> Module {
    try shape.check(ranks, layer: name)
    let made: Module
    if let conv = module as? Conv2d {
      made = try TuckerConv2d(shape, ranks, bias: hasBias, options: conv.options)
    } else {
      let activation = (module as? Linear)?.activation ?? .none
      if map != nil {
        made = try TuckerLinear(shape, ranks, bias: hasBias, activation: activation)
      } else {
        guard ranks.input == nil else {
          throw KDSError.argument("surgery: \"\(name)\" is linear and takes an output rank alone")
        }
        made = try SVDLinear(
          inputs: shape.inputs, outputs: shape.outputs, rank: ranks.output, bias: hasBias,
          activation: activation)
      }
    }
    made.setTraining(module.isTraining)
    if !weight.requiresGrad { made.setRequiresGrad(false) }
    return made
  }

  /// The factorized layer with its weights, and the relative error of the kernel over all groups.
  func replacement(
    _ ranks: TuckerRanks, iterations: Int
  ) throws -> (module: Module, error: Double) {
    let made = try emptyReplacement(ranks)
    var (lost, total) = (0.0, 0.0)
    for group in 0..<shape.groups {
      let kernel = kernel(group: group)
      let factors = try TuckerFactors(kernel, ranks, iterations: iterations)
      let norm = kernel.byOutput.squaredNorm
      lost += factors.error * factors.error * norm
      total += norm
      switch made {
      case let conv as TuckerConv2d: conv.fill(factors, group: group)
      case let linear as SVDLinear: linear.fill(factors)
      case let linear as TuckerLinear:
        (linear.childModule("conv") as? TuckerConv2d)?.fill(factors, group: group)
      default: break
      }
    }
    copyBias(to: made)
    return (made, total > 0 ? (lost / total).squareRoot() : 0)
  }

  private func copyBias(to made: Module) {
    guard let from = (module as? Conv2d)?.bias ?? (module as? Linear)?.bias,
      let to = made.namedParameters().first(where: { $0.name.hasSuffix("last.bias") })?.tensor
    else { return }
    to.floats.update(from: from.floats, count: from.count)
    to.markChanged()
  }
}
