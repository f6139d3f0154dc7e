import KDSNN
import KDSTensor

/// How the ranks are chosen.
public enum RankChoice {
  /// By VBMF, as Kim et al. 2016; meant for trained weights (noise has rank 1).
  case vbmf
  /// By hand, per dotted layer name; layers that are not named stay.
  case explicit([String: TuckerRanks])
  /// VBMF's ranks times one common factor, so that the whole model takes this fraction of its FLOPs.
  case flops(Double)
}

/// Options of `tucker`.
public struct TuckerOptions {
  public var ranks: RankChoice
  /// Layers to factorize, by dotted name or by the name of a part that holds them; nil takes all.
  public var layers: [String]?
  /// Linear layers that read a flattened map, with its height and width: they are factorized as the
  /// convolution that they are (fc6 of Kim et al.).
  public var maps: [String: Size2]
  /// Most iterations of the orthogonal iteration per layer.
  public var iterations: Int
  /// Solves for VBMF's bound instead of approximating it.
  public var exactBound: Bool

  public init(
    ranks: RankChoice = .vbmf, layers: [String]? = nil, maps: [String: Size2] = [:],
    iterations: Int = 50, exactBound: Bool = false
  ) {
    self.ranks = ranks
    self.layers = layers
    self.maps = maps
    self.iterations = iterations
    self.exactBound = exactBound
  }
}

/// What surgery did to one layer.
public struct TuckerLayerReport: Codable, Equatable {
  public var layer: String
  /// Channels per group.
  public var inputs, outputs: Int
  public var ranks: TuckerRanks
  /// Weights without biases.
  public var weightsBefore, weightsAfter: Int
  /// Per counted forward pass; nil when the model was not traced.
  public var flopsBefore, flopsAfter: Double?
  /// ‖K − K̂‖ / ‖K‖.
  public var relativeError: Double
}

/// What surgery did to a model.
public struct TuckerReport: Codable, Equatable {
  public var layers: [TuckerLayerReport]
  /// Considered layers that were left alone because the factors would not be smaller.
  public var kept: [String]
  public var weightsBefore, weightsAfter: Int
  /// Of the whole model; nil when it was not traced.
  public var flopsBefore, flopsAfter: Double?
  /// What rebuilds the structure.
  public var record: SurgeryRecord
}

/// Replaces convolutions and linear layers of `model`, in place, by their Tucker factors (Kim et al. 2016).
///
/// The model's first convolution, 1×1 convolutions and linear layers get Tucker-1 (the truncated SVD),
/// the others Tucker-2. A layer stays as it is where the factors would not be smaller, unless its ranks
/// are given.
/// - Parameter costs: what each layer does in one forward pass, from `FLOPCounter.count`; needed for
///   `.flops`, and for FLOPs in the report.
/// - Throws: `KDSError.argument` for layers that do not exist, ranks that do not fit, or a fraction that
///   cannot be reached.
public func tucker(
  _ model: Module, _ options: TuckerOptions = TuckerOptions(), costs: [LayerCost] = []
) throws -> TuckerReport {
  let targets = try surgeryTargets(model, options)
  let plan = try RankPlan(targets, options, costs)
  var reports: [TuckerLayerReport] = []
  var record = SurgeryRecord()
  let before = weightCount(model)
  for target in targets {
    guard let ranks = plan.ranks[target.name] else { continue }
    let (replacement, error) = try target.replacement(ranks, iterations: options.iterations)
    try model.replaceModule(at: target.name, with: replacement)
    let cost = plan.costs[target.name]
    reports.append(
      TuckerLayerReport(
        layer: target.name, inputs: target.shape.inputs, outputs: target.shape.outputs,
        ranks: ranks, weightsBefore: target.shape.weights,
        weightsAfter: target.shape.weights(ranks), flopsBefore: cost?.flops,
        flopsAfter: cost.map { target.flops(ranks, $0) }, relativeError: error))
    record.layers.append(
      FactorizedLayer(
        layer: target.name, ranks: ranks, map: target.map.map { [$0.height, $0.width] }))
  }
  return TuckerReport(
    layers: reports, kept: targets.map(\.name).filter { plan.ranks[$0] == nil },
    weightsBefore: before, weightsAfter: weightCount(model),
    flopsBefore: costs.isEmpty ? nil : costs.reduce(0) { $0 + $1.flops },
    flopsAfter: costs.isEmpty ? nil : plan.total(plan.ranks), record: record)
}

private func weightCount(_ model: Module) -> Int {
  model.namedParameters().reduce(0) { $0 + $1.tensor.count }
}

/// Layers that the options ask for, in the model's order; parts of layers already factorized are not.
private func surgeryTargets(_ model: Module, _ options: TuckerOptions) throws -> [SurgeryTarget] {
  var found: [SurgeryTarget] = []
  var inside: String?
  for (name, module) in model.namedModules() {
    if let prefix = inside, name.hasPrefix(prefix) { continue }
    inside = nil
    if module is TuckerConv2d || module is SVDLinear || module is TuckerLinear {
      inside = name + "."
    } else if var target = try SurgeryTarget(name, module, map: options.maps[name]) {
      target.isFirst = module is Conv2d && !found.contains { $0.module is Conv2d }
      found.append(target)
    }
  }
  let unknown = options.maps.keys.sorted().first { name in !found.contains { $0.name == name } }
  if let unknown { throw KDSError.argument("tucker: maps names no layer \"\(unknown)\"") }
  guard let wanted = options.layers else { return found }
  for name in wanted where !found.contains(where: { isPart($0.name, of: name) }) {
    throw KDSError.argument("tucker: the model has no convolution or linear layer in \"\(name)\"")
  }
  return found.filter { target in wanted.contains { isPart(target.name, of: $0) } }
}

private func isPart(_ layer: String, of name: String) -> Bool {
  layer == name || layer.hasPrefix(name + ".")
}

extension SurgeryTarget {
  /// FLOPs of the factors where the layer as it is takes `cost`.
  func flops(_ ranks: TuckerRanks, _ cost: LayerCost) -> Double {
    let isMap = module is Conv2d
    let input = isMap ? Size2(cost.inputShape[2], cost.inputShape[3]) : map ?? Size2(1)
    let output = isMap ? Size2(cost.outputShape[2], cost.outputShape[3]) : Size2(1)
    return cost.flops / shape.speedup(ranks, input: input, output: output)
  }
}
