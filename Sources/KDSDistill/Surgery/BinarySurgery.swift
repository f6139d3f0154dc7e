import KDSDetection
import KDSNN
import KDSTensor

/// One convolution of signs, as a model file records it.
public struct BinaryLayer: Codable, Equatable {
  /// Dotted name in the model.
  public var layer: String
  public var settings: BinarySettings

  public init(layer: String, settings: BinarySettings = BinarySettings()) {
    (self.layer, self.settings) = (layer, settings)
  }

  /// Puts it in the place of the ordinary convolution of that name, whose weights it takes.
  func apply(to model: Module) throws {
    guard let conv = model.module(at: layer) as? Conv2d else {
      throw KDSError.format("surgery: the model has no convolution \"\(layer)\"")
    }
    try model.replaceModule(at: layer, with: BinaryConv2d(conv, settings))
  }
}

/// Options of `binarize`.
public struct BinarizeOptions: Codable {
  /// What stays in full precision: "first" (the first convolution), "last" (the neck; prediction layers
  /// stay always), names of layers, of parts that hold them, or of one component of a name ("downsample").
  public var keep = ["first", "last"]
  public var settings = BinarySettings()

  public init() {}
}

/// What surgery did to one convolution.
public struct BinaryLayerReport: Codable, Equatable {
  public var layer: String
  public var inputs, outputs: Int
  /// (height, width)
  public var kernel: [Int]
  public var weights: Int
  /// S = 64 c N / (c N + 64), c input channels, N kernel area: the paper's section 4.1.
  public var theoreticalSpeedup: Double

  enum CodingKeys: String, CodingKey {
    case layer, inputs, outputs, kernel, weights
    case theoreticalSpeedup = "theoretical_speedup"
  }
}

/// A convolution that stays as it is, and why.
public struct KeptLayer: Codable, Equatable {
  public var layer: String
  public var reason: String
}

/// What `binarize` did.
public struct BinaryReport: Codable, Equatable {
  public var layers: [BinaryLayerReport]
  public var kept: [KeptLayer]
  public var record: SurgeryRecord
}

/// 64 c N / (c N + 64): what counting bits saves at most, over multiplying (Rastegari et al. 2016).
public func binarySpeedup(channels: Int, kernelArea: Int) -> Double {
  let length = Double(channels * kernelArea)
  return 64 * length / (length + 64)
}

/// Replaces convolutions of the backbone (and of the neck, if "last" is not kept), in place, by
/// convolutions of signs.
///
/// Heads stay in full precision: the proposal network, region heads and dense heads end in predictions.
/// So do convolutions in groups, parts of factorized or deformable ones, and whatever is frozen.
/// - Throws: `KDSError.argument` for names that match nothing, or when no convolution is left.
public func binarize(
  _ model: any Detector, _ options: BinarizeOptions = BinarizeOptions()
) throws -> BinaryReport {
  try options.settings.check()
  let candidates = binaryCandidates(model)
  let words = options.keep.filter { $0 != "first" && $0 != "last" }
  for word in words where !candidates.contains(where: { isNamed($0.name, word) }) {
    throw KDSError.argument(
      "binarize: keep names no convolution of the backbone or neck \"\(word)\"")
  }
  var report = BinaryReport(layers: [], kept: [], record: SurgeryRecord())
  for (index, candidate) in candidates.enumerated() {
    if let reason = candidate.reason(options.keep, isFirst: index == 0) {
      report.kept.append(KeptLayer(layer: candidate.name, reason: reason))
      continue
    }
    let entry = BinaryLayer(layer: candidate.name, settings: options.settings)
    try entry.apply(to: model)
    report.layers.append(candidate.report)
    report.record.binary.append(entry)
  }
  guard !report.layers.isEmpty else {
    throw KDSError.argument(
      "binarize: no convolution of \(model.common.backbone.name) is left to binarize; "
        + "\(report.kept.count) stay as they are")
  }
  return report
}

/// A convolution of backbone or neck.
private struct BinaryCandidate {
  let name: String
  let conv: Conv2d
  /// Belongs to the neck.
  let isLast: Bool
  /// Belongs to a convolution of another kind.
  let owner: String?

  /// Why it stays, nil when it does not.
  func reason(_ keep: [String], isFirst: Bool) -> String? {
    if let owner { return owner }
    if isFirst && keep.contains("first") { return "first" }
    if isLast && keep.contains("last") { return "last" }
    if keep.contains(where: { isNamed(name, $0) }) { return "named" }
    if conv.options.groups > 1 { return "in groups" }
    return conv.weight.requiresGrad ? nil : "frozen"
  }

  var report: BinaryLayerReport {
    let shape = conv.weight.shape
    return BinaryLayerReport(
      layer: name, inputs: shape[1], outputs: shape[0], kernel: [shape[2], shape[3]],
      weights: conv.weight.count,
      theoreticalSpeedup: binarySpeedup(channels: shape[1], kernelArea: shape[2] * shape[3]))
  }
}

private func binaryCandidates(_ model: any Detector) -> [BinaryCandidate] {
  let source = Set(model.source.namedModules().map { ObjectIdentifier($0.module) })
  let body = Set(model.source.body.namedModules().map { ObjectIdentifier($0.module) })
  var found: [BinaryCandidate] = []
  var inside: (prefix: String, owner: String)?
  for (name, module) in model.namedModules() where source.contains(ObjectIdentifier(module)) {
    if let part = inside, !name.hasPrefix(part.prefix) { inside = nil }
    if module is TuckerConv2d { inside = (name + ".", "factorized") }
    if module is DeformConv2d { inside = (name + ".", "deformable") }
    guard let conv = module as? Conv2d else { continue }
    found.append(
      BinaryCandidate(
        name: name, conv: conv, isLast: !body.contains(ObjectIdentifier(module)),
        owner: inside?.owner))
  }
  return found
}

private func isNamed(_ layer: String, _ word: String) -> Bool {
  layer == word || layer.hasPrefix(word + ".")
    || layer.split(separator: ".").contains { $0 == word }
}
