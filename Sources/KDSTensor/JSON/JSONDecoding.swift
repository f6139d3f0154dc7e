/// Reads a `Decodable` out of a `JSONValue` and remembers which keys were asked for, so that a key
/// nobody asked for is known to be a mistake.
final class JSONDecoding {
  /// Keys of the document that no type asked for, and what it would have taken in that place.
  private(set) var unknownKeys: [(path: [String], allowed: [String])] = []

  func decode<T: Decodable>(_ type: T.Type, from value: JSONValue) throws -> T {
    try decode(type, from: value, path: [])
  }

  fileprivate func decode<T: Decodable>(
    _ type: T.Type, from value: JSONValue, path: [any CodingKey]
  ) throws -> T {
    if let leaf = try scalar(type, from: value, path: path) { return leaf }
    let decoder = ValueDecoder(session: self, value: value, codingPath: path)
    let result = try T(from: decoder)
    collectUnknown(decoder)
    return result
  }

  private func collectUnknown(_ decoder: ValueDecoder) {
    guard case .object(let members) = decoder.value, !decoder.asked.wasPassedOn else { return }
    let asked = decoder.asked.keys
    for key in members.keys.sorted() where !asked.contains(key) {
      unknownKeys.append((decoder.codingPath.map(\.stringValue) + [key], asked.sorted()))
    }
  }

  private func scalar<T>(
    _ type: T.Type, from value: JSONValue, path: [any CodingKey]
  ) throws -> T? {
    switch type {
    case is Bool.Type:
      if case .bool(let leaf) = value { return leaf as? T }
      throw mismatch("a boolean", value, path)
    case is String.Type:
      if case .string(let leaf) = value { return leaf as? T }
      throw mismatch("a string", value, path)
    case is Double.Type: return try real(value, path) as? T
    case is Float.Type: return Float(try real(value, path)) as? T
    case let integer as any FixedWidthInteger.Type: return try whole(integer, value, path) as? T
    default: return nil
    }
  }

  private func real(_ value: JSONValue, _ path: [any CodingKey]) throws -> Double {
    switch value {
    case .double(let leaf): return leaf
    case .int(let leaf): return Double(leaf)
    default: throw mismatch("a number", value, path)
    }
  }

  private func whole<I: FixedWidthInteger>(
    _ type: I.Type, _ value: JSONValue, _ path: [any CodingKey]
  ) throws -> I {
    switch value {
    case .int(let leaf):
      if let exact = I(exactly: leaf) { return exact }
      throw mismatch("a whole number from \(I.min) to \(I.max)", value, path)
    case .double(let leaf):
      if let exact = I(exactly: leaf) { return exact }
      throw mismatch("a whole number", value, path)
    default: throw mismatch("a whole number", value, path)
    }
  }
}

/// The error for a value of the wrong kind; a short value is shown, a long one only named.
private func mismatch(
  _ expected: String, _ found: JSONValue, _ path: [any CodingKey]
) -> DecodingError {
  let text = found.text
  let shown = text.utf8.count <= 40 ? text : found.kindName
  return .dataCorrupted(.init(codingPath: path, debugDescription: "\(shown), expected \(expected)"))
}

private struct Index: CodingKey {
  let intValue: Int?
  var stringValue: String { "[\(intValue ?? 0)]" }
  init(intValue: Int) { self.intValue = intValue }
  init?(stringValue: String) { return nil }
}

/// The keys that one object was asked for; none when the type has no members.
private final class AskedKeys {
  var keys: Set<String> = []
  /// Whether the whole value went on to another type, which asks for itself.
  var wasPassedOn = false
}

private struct ValueDecoder: Decoder {
  let session: JSONDecoding
  let value: JSONValue
  let codingPath: [any CodingKey]
  let asked = AskedKeys()
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
    guard case .object(let members) = value else { throw mismatch("an object", value, codingPath) }
    return KeyedDecodingContainer(KeyedReader<Key>(decoder: self, members: members))
  }

  func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
    guard case .array(let values) = value else { throw mismatch("an array", value, codingPath) }
    return UnkeyedReader(decoder: self, values: values)
  }

  func singleValueContainer() -> any SingleValueDecodingContainer { SingleReader(decoder: self) }
}

private struct KeyedReader<Key: CodingKey>: KeyedDecodingContainerProtocol {
  let decoder: ValueDecoder
  let members: [String: JSONValue]
  var codingPath: [any CodingKey] { decoder.codingPath }

  /// Reading all keys means that any key is welcome: the type is a dictionary.
  var allKeys: [Key] {
    decoder.asked.keys.formUnion(members.keys)
    return members.keys.sorted().compactMap { Key(stringValue: $0) }
  }

  private func look(_ key: Key) throws -> JSONValue {
    decoder.asked.keys.insert(key.stringValue)
    guard let value = members[key.stringValue] else {
      throw DecodingError.keyNotFound(
        key, .init(codingPath: codingPath, debugDescription: "missing"))
    }
    return value
  }

  func contains(_ key: Key) -> Bool {
    decoder.asked.keys.insert(key.stringValue)
    return members[key.stringValue] != nil
  }

  func decodeNil(forKey key: Key) throws -> Bool { try look(key) == .null }

  func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T {
    try decoder.session.decode(type, from: try look(key), path: codingPath + [key])
  }

  private func child(_ key: Key) throws -> ValueDecoder {
    ValueDecoder(
      session: decoder.session, value: try look(key), codingPath: codingPath + [key])
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) throws -> KeyedDecodingContainer<Nested> {
    try child(key).container(keyedBy: type)
  }

  func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
    try child(key).unkeyedContainer()
  }

  func superDecoder() -> any Decoder { decoder }
  func superDecoder(forKey key: Key) throws -> any Decoder { try child(key) }
}

private struct UnkeyedReader: UnkeyedDecodingContainer {
  let decoder: ValueDecoder
  let values: [JSONValue]
  private(set) var currentIndex = 0
  var codingPath: [any CodingKey] { decoder.codingPath }
  var count: Int? { values.count }
  var isAtEnd: Bool { currentIndex >= values.count }

  init(decoder: ValueDecoder, values: [JSONValue]) {
    self.decoder = decoder
    self.values = values
  }

  private mutating func next() throws -> (JSONValue, [any CodingKey]) {
    guard !isAtEnd else { throw mismatch("more elements", .array(values), codingPath) }
    defer { currentIndex += 1 }
    return (values[currentIndex], codingPath + [Index(intValue: currentIndex)])
  }

  mutating func decodeNil() -> Bool {
    guard !isAtEnd, values[currentIndex] == .null else { return false }
    currentIndex += 1
    return true
  }

  mutating func decode<T: Decodable>(_ type: T.Type) throws -> T {
    let (value, path) = try next()
    return try decoder.session.decode(type, from: value, path: path)
  }

  private mutating func child() throws -> ValueDecoder {
    let (value, path) = try next()
    return ValueDecoder(session: decoder.session, value: value, codingPath: path)
  }

  mutating func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type
  ) throws -> KeyedDecodingContainer<Nested> {
    try child().container(keyedBy: type)
  }

  mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
    try child().unkeyedContainer()
  }

  mutating func superDecoder() throws -> any Decoder { try child() }
}

private struct SingleReader: SingleValueDecodingContainer {
  let decoder: ValueDecoder
  var codingPath: [any CodingKey] { decoder.codingPath }

  func decodeNil() -> Bool { decoder.value == .null }

  func decode<T: Decodable>(_ type: T.Type) throws -> T {
    decoder.asked.wasPassedOn = true
    return try decoder.session.decode(type, from: decoder.value, path: codingPath)
  }
}
