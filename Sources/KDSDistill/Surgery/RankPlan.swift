import KDSNN
import KDSTensor

/// Which layer gets which ranks.
struct RankPlan {
  /// Layers that are to be replaced.
  private(set) var ranks: [String: TuckerRanks] = [:]
  let costs: [String: LayerCost]
  private let targets: [SurgeryTarget]
  private let allFlops: Double

  init(_ targets: [SurgeryTarget], _ options: TuckerOptions, _ costs: [LayerCost]) throws {
    self.targets = targets
    self.costs = Dictionary(costs.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    allFlops = costs.reduce(0) { $0 + $1.flops }
    switch options.ranks {
    case .explicit(let given): ranks = try Self.explicit(given, targets)
    case .vbmf: ranks = smaller(try Self.estimate(targets, options))
    case .flops(let fraction):
      guard allFlops > 0 else {
        throw KDSError.argument("tucker: a FLOPs target needs the costs of a forward pass")
      }
      guard fraction > 0, fraction < 1 else {
        throw KDSError.argument("tucker: the FLOPs target \(fraction) must lie between 0 and 1")
      }
      ranks = try scaled(Self.estimate(targets, options), to: fraction)
    }
  }

  /// FLOPs of the whole model with these ranks.
  func total(_ ranks: [String: TuckerRanks]) -> Double {
    targets.reduce(allFlops) { sum, target in
      guard let chosen = ranks[target.name], let cost = costs[target.name] else { return sum }
      return sum - cost.flops + target.flops(chosen, cost)
    }
  }

  private static func explicit(
    _ given: [String: TuckerRanks], _ targets: [SurgeryTarget]
  ) throws -> [String: TuckerRanks] {
    for name in given.keys.sorted() where !targets.contains(where: { $0.name == name }) {
      throw KDSError.argument("tucker: ranks name no convolution or linear layer \"\(name)\"")
    }
    for target in targets { try given[target.name].map { try target.checkRanks($0) } }
    return given
  }

  /// VBMF per layer; of several groups the one that needs most decides.
  private static func estimate(
    _ targets: [SurgeryTarget], _ options: TuckerOptions
  ) throws -> [String: TuckerRanks] {
    var result: [String: TuckerRanks] = [:]
    for target in targets {
      let tucker1 = target.isFirst || target.shape.area == 1
      var most = TuckerRanks(input: tucker1 ? nil : 1, output: 1)
      for group in 0..<target.shape.groups {
        let found = try target.kernel(group: group).estimatedRanks(
          tucker1: tucker1, exactBound: options.exactBound)
        most.input = found.input.map { max($0, most.input ?? 1) }
        most.output = max(most.output, found.output)
      }
      result[target.name] = target.shape.clamped(most)
    }
    return result
  }

  /// Without the layers whose factors would not be smaller.
  private func smaller(_ ranks: [String: TuckerRanks]) -> [String: TuckerRanks] {
    var result = ranks
    for target in targets {
      if let chosen = ranks[target.name], target.shape.weights(chosen) >= target.shape.weights {
        result[target.name] = nil
      }
    }
    return result
  }

  /// The largest common factor whose ranks meet the target, by bisection.
  private func scaled(
    _ base: [String: TuckerRanks], to fraction: Double
  ) throws -> [String: TuckerRanks] {
    func ranks(_ factor: Double) -> [String: TuckerRanks] {
      var result: [String: TuckerRanks] = [:]
      for target in targets {
        guard let own = base[target.name] else { continue }
        func times(_ rank: Int) -> Int { Int((Double(rank) * factor).rounded()) }
        result[target.name] = target.shape.clamped(
          TuckerRanks(input: own.input.map(times), output: times(own.output)))
      }
      return smaller(result)
    }
    let wanted = fraction * allFlops
    var (low, high) = (0.0, Double(base.values.map { largest($0) }.max() ?? 1))
    let least = total(ranks(low))
    guard least <= wanted else {
      throw KDSError.argument(
        "tucker: \(fraction) of the FLOPs cannot be reached; ranks of 1 still take \(least / allFlops)"
      )
    }
    for _ in 0..<60 {
      let middle = (low + high) / 2
      if total(ranks(middle)) <= wanted { low = middle } else { high = middle }
    }
    return ranks(low)
  }

  /// A factor at which every rank of the layer reaches its cap; caps are at most 2¹⁶.
  private func largest(_ ranks: TuckerRanks) -> Int {
    65536 / max(1, min(ranks.input ?? ranks.output, ranks.output))
  }
}

extension SurgeryTarget {
  func checkRanks(_ ranks: TuckerRanks) throws { try shape.check(ranks, layer: name) }
}
