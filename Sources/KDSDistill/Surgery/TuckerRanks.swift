import KDSNN
import KDSTensor

/// Ranks of one factorized layer.
public struct TuckerRanks: Codable, Equatable {
  /// R3, channels between the first 1×1 convolution and the core; nil without a first one (Tucker-1,
  /// which for a linear layer is the truncated SVD).
  public var input: Int?
  /// R4, channels between the core and the last 1×1 convolution.
  public var output: Int

  public init(input: Int?, output: Int) {
    self.input = input
    self.output = output
  }
}

/// Sizes of a layer as the factorization sees it: channels of one group, kernel and groups.
///
/// A linear layer is a 1×1 kernel on a 1×1 map; one that reads a flattened map is a kernel of that size.
public struct KernelShape: Equatable {
  /// S, input channels per group.
  public var inputs: Int
  /// T, output channels per group.
  public var outputs: Int
  public var kernel: Size2
  public var groups: Int

  public init(inputs: Int, outputs: Int, kernel: Size2, groups: Int = 1) {
    self.inputs = inputs
    self.outputs = outputs
    self.kernel = kernel
    self.groups = groups
  }

  var area: Int { kernel.height * kernel.width }

  /// Weights of the layer as it is, without bias.
  public var weights: Int { groups * area * inputs * outputs }

  /// Weights after factorization: S R3 + D² R3 R4 + T R4 per group (Kim et al. 2016).
  public func weights(_ ranks: TuckerRanks) -> Int {
    let between = ranks.input ?? inputs
    let first = ranks.input.map { inputs * $0 } ?? 0
    return groups * (first + area * between * ranks.output + outputs * ranks.output)
  }

  /// Multiply-adds per image of the layer as it is.
  public func multiplyAdds(output: Size2) -> Double {
    Double(weights) * Double(output.height * output.width)
  }

  /// Multiply-adds per image after factorization: the first convolution runs on the input map.
  public func multiplyAdds(_ ranks: TuckerRanks, input: Size2, output: Size2) -> Double {
    let between = ranks.input ?? inputs
    let first = Double(ranks.input.map { inputs * $0 } ?? 0) * Double(input.height * input.width)
    let rest = Double(area * between * ranks.output + outputs * ranks.output)
    return Double(groups) * (first + rest * Double(output.height * output.width))
  }

  /// M of Kim et al.: weights before over weights after.
  public func compression(_ ranks: TuckerRanks) -> Double {
    Double(weights) / Double(weights(ranks))
  }

  /// E of Kim et al.: multiply-adds before over multiply-adds after. What a processor makes of it has
  /// to be measured: small maps may run slower in three steps.
  public func speedup(_ ranks: TuckerRanks, input: Size2, output: Size2) -> Double {
    multiplyAdds(output: output) / multiplyAdds(ranks, input: input, output: output)
  }

  /// The ranks forced into 1...S and 1...T.
  func clamped(_ ranks: TuckerRanks) -> TuckerRanks {
    let core = min(outputs, area * (ranks.input ?? inputs))
    return TuckerRanks(
      input: ranks.input.map { max(1, min(inputs, $0)) },
      output: max(1, min(ranks.input == nil ? core : outputs, ranks.output)))
  }

  /// Throws when the ranks do not fit; `layer` is for the message.
  func check(_ ranks: TuckerRanks, layer: String) throws {
    let fits = (1...outputs).contains(ranks.output) && (1...inputs).contains(ranks.input ?? 1)
    guard fits else {
      let given = ranks.input.map { "(\($0), \(ranks.output))" } ?? "\(ranks.output)"
      throw KDSError.argument(
        "tucker: ranks \(given) of \"\(layer)\" do not fit its \(inputs) input and "
          + "\(outputs) output channels per group")
    }
  }
}
