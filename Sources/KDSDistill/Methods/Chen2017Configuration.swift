import KDSTensor

/// Options of Chen et al. 2017; every row of the paper's Table 4 is one setting of them.
public struct Chen2017Configuration: Codable, Equatable {
  public var name = "chen2017"
  /// Factor on everything that the method adds; 0 is plain training, bit for bit.
  public var scale = 1.0
  /// "weighted" (eq. 3), "plain" (all weights 1) or "" for none.
  public var classification = "weighted"
  /// "bounded" (eq. 4), "l2" (regress to the teacher's output) or "" for none.
  public var regression = "bounded"
  /// Whether features are compared (eq. 5 and 6).
  public var hint = true
  /// Whether a 1×1 convolution stands after the guided layer, also when channels match.
  public var adaptation = true
  /// Share of the hard loss in eq. 2. The paper gives no value.
  public var mu = 0.5
  /// Weight of the bounded regression.
  public var nu = 0.5
  /// Weight of the hint.
  public var gamma = 0.5
  /// Margin m of eq. 4, in units of the box offsets. The paper gives no value.
  public var margin = 0.0
  /// Weight of the background class in the soft loss.
  public var background_weight = 1.5
  public var temperature = 1.0
  /// "l2" (eq. 5) or "l1" (eq. 6).
  public var hint_distance = "l2"
  /// "mean" over elements, or "sum": the raw norm.
  public var hint_reduction = "mean"
  /// Backbone features to compare, "student:teacher" or one name; empty is the last shared one of each.
  public var hint_layer = ""
  /// Whether the proposal network and the region head are distilled.
  public var rpn = true
  public var rcn = true

  public init() {}

  func check() throws {
    guard ["weighted", "plain", ""].contains(classification) else {
      throw KDSError.argument(
        "chen2017.classification: \"\(classification)\" is none of \"weighted\", \"plain\", \"\"")
    }
    guard ["bounded", "l2", ""].contains(regression) else {
      throw KDSError.argument(
        "chen2017.regression: \"\(regression)\" is none of \"bounded\", \"l2\", \"\"")
    }
    guard ["l2", "l1"].contains(hint_distance), ["mean", "sum"].contains(hint_reduction) else {
      throw KDSError.argument(
        "chen2017: hint_distance is \"l2\" or \"l1\", hint_reduction \"mean\" or \"sum\"; got "
          + "\"\(hint_distance)\", \"\(hint_reduction)\"")
    }
    guard (0...1).contains(mu) else {
      throw KDSError.argument("chen2017.mu: \(mu) must be between 0 (soft only) and 1 (hard only)")
    }
    for (label, value) in [
      ("scale", scale), ("nu", nu), ("gamma", gamma), ("margin", margin),
      ("background_weight", background_weight),
    ] where !(value >= 0 && value.isFinite) {
      throw KDSError.argument("chen2017.\(label): \(value) must be finite and not negative")
    }
    guard temperature > 0, temperature.isFinite else {
      throw KDSError.argument("chen2017.temperature: \(temperature) must be positive")
    }
  }
}
