/// All operations by name, for callers that know names only: the C boundary and Python.
///
/// An operation takes tensors and attributes, a JSON object whose absent keys keep their defaults and
/// whose unknown keys are errors. Every entry checks its inputs before anything can trap.
public enum OpRegistry {
  /// Runs the operation `name`.
  ///
  /// - Parameter attributes: a JSON object; "" stands for `{}`.
  /// - Throws: `KDSError.argument` for an unknown name, a wrong number of inputs or unknown attributes;
  ///   whatever the operation throws for shapes and values.
  public static func apply(
    _ name: String, _ inputs: [Tensor], attributes: String = ""
  ) throws -> [Tensor] {
    guard let entry = table[name] else {
      throw KDSError.argument(
        "unknown operation \"\(name)\"; known: \(names.joined(separator: ", "))")
    }
    guard entry.inputs.contains(inputs.count) else {
      throw KDSError.argument(
        "\(name): takes \(entry.inputCount) inputs, got \(inputs.count)")
    }
    return try entry.run(inputs, attributes)
  }

  /// The names of all operations, sorted.
  public static var names: [String] { table.keys.sorted() }

  /// All operations as JSON: name to summary, least and most inputs (null: any number) and default
  /// attributes.
  public static func describe() throws -> String {
    var members: [String: JSONValue] = [:]
    for (name, entry) in table {
      let most = entry.inputs.upperBound
      members[name] = .object([
        "summary": .string(entry.summary),
        "min_inputs": .int(Int64(entry.inputs.lowerBound)),
        "max_inputs": most == OpEntry.any ? .null : .int(Int64(most)),
        "attributes": try StrictJSON.parse(try entry.defaults(), what: name),
      ])
    }
    return JSONValue.object(members).text
  }

  private static let table: [String: OpEntry] = {
    let groups = [
      elementwise, reductions, shapes, indexing, layers, normalizations, maps, losses, boxes,
      binaryNetworks, featureLosses, headLosses, regionLosses,
    ]
    let entries = groups.flatMap { $0 }
    return Dictionary(uniqueKeysWithValues: entries.map { ($0.name, $0) })
  }()
}

/// One operation of the registry.
struct OpEntry {
  /// Upper bound of `inputs` for operations that take a list.
  static let any = Int.max - 1

  let name: String
  let summary: String
  let inputs: ClosedRange<Int>
  let defaults: () throws -> String
  let run: ([Tensor], String) throws -> [Tensor]

  var inputCount: String {
    if inputs.upperBound == OpEntry.any { return "at least \(inputs.lowerBound)" }
    return inputs.count == 1
      ? "\(inputs.lowerBound)" : "\(inputs.lowerBound) to \(inputs.upperBound)"
  }

  /// An operation with attributes and several results.
  init<Options: Codable>(
    _ name: String, _ inputs: ClosedRange<Int>, _ defaults: Options, _ summary: String,
    all body: @escaping ([Tensor], Options) throws -> [Tensor]
  ) {
    self.name = name
    self.inputs = inputs
    self.summary = summary
    self.defaults = { try StrictJSON.encode(defaults) }
    run = { tensors, text in
      try body(tensors, try StrictJSON.decode(text, defaults: defaults, what: name))
    }
  }

  /// An operation with attributes and one result.
  init<Options: Codable>(
    _ name: String, _ inputs: ClosedRange<Int>, _ defaults: Options, _ summary: String,
    _ body: @escaping ([Tensor], Options) throws -> Tensor
  ) {
    self.init(name, inputs, defaults, summary, all: { [try body($0, $1)] })
  }

  /// An operation without attributes and with one result.
  init(
    _ name: String, _ inputs: ClosedRange<Int>, _ summary: String,
    _ body: @escaping ([Tensor]) throws -> Tensor
  ) {
    self.init(name, inputs, NoOptions(), summary, all: { tensors, _ in [try body(tensors)] })
  }
}

/// The attributes of operations that have none.
struct NoOptions: Codable {}

/// One axis; negative ones count from the back.
struct AxisOptions: Codable {
  var axis = -1
}

extension Array where Element == Tensor {
  /// The input at `index`, when there is one.
  func optional(_ index: Int) -> Tensor? { index < count ? self[index] : nil }
}
