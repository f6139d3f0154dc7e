import KDSNN
import KDSTensor

/// Options of a run.
public struct TrainerOptions: Equatable {
  /// What is plain data with defaults.
  public struct Common: Codable, Equatable {
    public var optimizer = OptimizerConfiguration()
    public var schedule = ScheduleConfiguration()
    /// Largest global L2 norm of the gradients; 0 is off.
    public var clip_norm = 0.0
    /// Draws anchors, regions, dropout and the connectors' first weights.
    public var seed = 0
    /// "fp32", or "bf16": convolutions in bfloat16; weights, optimizer and losses stay float32.
    public var precision = "fp32"
    /// Factors on the student's detection losses by their names; those not named have 1.
    public var loss_weights: [String: Double] = [:]
    /// Whether teachers' dense heads run; without them their taps are those of backbone and neck.
    public var head_taps = true
    /// Whether teachers' region heads run for the taps that a caller's own terms read.
    public var region_taps = true
    /// Whether one-stage heads keep their towers' taps for a caller's own terms.
    public var tower_taps = false

    public init() {}
  }

  public var common = Common()
  /// The method as data: one entry per published method. None is plain training.
  public var parts: [Chen2017Configuration] = []

  public init() {}

  /// From JSON: the keys of `Common`, and "method": {"parts": [{"name": "chen2017", …}]}. Missing keys
  /// take defaults, unknown ones are errors.
  public init(json: String) throws {
    guard
      case .object(var fields) = try StrictJSON.parse(json.isEmpty ? "{}" : json, what: "options")
    else { throw KDSError.argument("options: expected a JSON object") }
    let method = fields.removeValue(forKey: "method")
    common = try StrictJSON.decode(
      JSONValue.object(fields).text, defaults: Common(), what: "options")
    parts = try Self.parts(method)
  }

  private static func parts(_ method: JSONValue?) throws -> [Chen2017Configuration] {
    guard let method, method != .null else { return [] }
    guard case .object(let fields) = method, fields.keys.allSatisfy({ $0 == "parts" }),
      case .array(let list) = fields["parts"] ?? .array([])
    else { throw KDSError.argument("options.method: expected {\"parts\": [...]}") }
    return try list.map { entry in
      guard case .object(let part) = entry, part["name"] == .string("chen2017") else {
        throw KDSError.argument(
          "options.method: every part needs a name; the engine knows \"chen2017\"")
      }
      return try StrictJSON.decode(
        entry.text, defaults: Chen2017Configuration(), what: "chen2017")
    }
  }
}
