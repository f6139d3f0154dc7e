/// Options and configurations as JSON: absent keys keep their defaults, unknown keys are errors.
public enum StrictJSON {
  /// Reads options over their defaults.
  ///
  /// - Parameters:
  ///   - text: a JSON object; the empty string stands for `{}`.
  ///   - defaults: the values of absent keys; nested objects are overlaid key by key, arrays are
  ///     replaced as a whole.
  ///   - what: the name for error messages, such as "FasterRCNN options".
  /// - Throws: `KDSError.argument` for an unknown key (naming its path and the nearest allowed keys)
  ///   or a value of the wrong type; `KDSError.format` for text that is not JSON.
  public static func decode<T: Codable>(
    _ text: String, defaults: T, what: String
  ) throws -> T {
    let base = try value(of: defaults, what: what)
    let given = text.isEmpty ? JSONValue.object([:]) : try parse(text, what: what)
    guard case .object = given else {
      throw KDSError.argument("\(what): expected a JSON object, found \(given.kindName)")
    }
    return try decode(T.self, from: overlay(given, on: base), what: what)
  }

  /// Reads a value that has no defaults: every key that is not optional must be there.
  public static func decode<T: Decodable>(
    _ type: T.Type, _ text: String, what: String
  ) throws -> T {
    try decode(type, from: try parse(text, what: what), what: what)
  }

  /// Writes a value as JSON on one line, keys sorted, absent optionals as null.
  public static func encode(_ encodable: some Encodable) throws -> String {
    try value(of: encodable, what: "JSON").text
  }

  /// Reads JSON text; errors name the byte offset.
  public static func parse(_ text: String, what: String) throws -> JSONValue {
    do {
      return try JSONParser.parse(text)
    } catch let error as KDSError {
      throw KDSError.format("\(what): \(error.description)")
    }
  }

  private static func value(of encodable: some Encodable, what: String) throws -> JSONValue {
    do {
      return try JSONEncoding.value(of: encodable)
    } catch let error as EncodingError {
      throw KDSError.argument("\(what): \(error)")
    }
  }

  private static func overlay(_ given: JSONValue, on base: JSONValue) -> JSONValue {
    guard case .object(let new) = given, case .object(var members) = base else { return given }
    for (key, value) in new {
      members[key] = members[key].map { overlay(value, on: $0) } ?? value
    }
    return .object(members)
  }

  private static func decode<T: Decodable>(
    _ type: T.Type, from value: JSONValue, what: String
  ) throws -> T {
    let decoding = JSONDecoding()
    let result: T
    do {
      result = try decoding.decode(type, from: value)
    } catch let error as DecodingError {
      throw KDSError.argument("\(what): \(describe(error))")
    }
    if let unknown = decoding.unknownKeys.first {
      throw KDSError.argument("\(what): \(describe(unknown.path, unknown.allowed))")
    }
    return result
  }

  private static func describe(_ path: [String], _ allowed: [String]) -> String {
    let key = path.last ?? ""
    if allowed.isEmpty {
      return "unknown key '\(path.joined(separator: "."))'; there are no keys here"
    }
    let near = allowed.map { ($0, distance($0, key)) }.filter { $0.1 <= max(2, key.count / 3) }
      .sorted { ($0.1, $0.0) < ($1.1, $1.0) }.prefix(3).map { "'\($0.0)'" }
    let hint =
      near.isEmpty
      ? "allowed: \(allowed.joined(separator: ", "))"
      : "did you mean \(near.joined(separator: " or "))?"
    return "unknown key '\(path.joined(separator: "."))'; \(hint)"
  }

  private static func describe(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, let context):
      let path = (context.codingPath + [key]).map(\.stringValue).joined(separator: ".")
      return "missing key '\(path)'"
    case .dataCorrupted(let context), .typeMismatch(_, let context),
      .valueNotFound(_, let context):
      let path = context.codingPath.map(\.stringValue).joined(separator: ".")
      return path.isEmpty
        ? context.debugDescription : "key '\(path)' is \(context.debugDescription)"
    @unknown default: return "\(error)"
    }
  }

  /// Levenshtein's edit distance between two keys.
  private static func distance(_ first: String, _ second: String) -> Int {
    let columns = Array(second.utf8)
    var row = Array(0...columns.count)
    for (index, byte) in first.utf8.enumerated() {
      var diagonal = row[0]
      row[0] = index + 1
      for column in columns.indices {
        let replaced = diagonal + (columns[column] == byte ? 0 : 1)
        diagonal = row[column + 1]
        row[column + 1] = min(replaced, min(diagonal, row[column]) + 1)
      }
    }
    return row[columns.count]
  }
}
