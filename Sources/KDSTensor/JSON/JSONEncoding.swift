/// Turns an `Encodable` into a `JSONValue`. Unlike the synthesized habit, a nil optional is written
/// as null, so that the result lists every key that the type knows.
enum JSONEncoding {
  static func value(of encodable: some Encodable) throws -> JSONValue {
    try nested(encodable, path: [])
  }

  fileprivate static func nested(
    _ encodable: some Encodable, path: [any CodingKey]
  ) throws -> JSONValue {
    let slot = Slot()
    try encodable.encode(to: ValueEncoder(slot: slot, codingPath: path))
    return slot.finished
  }
}

/// A place in the tree under construction.
private final class Slot {
  var value: JSONValue?
  var members: [String: Slot]?
  var elements: [Slot]?

  var finished: JSONValue {
    if let members { return .object(members.mapValues(\.finished)) }
    if let elements { return .array(elements.map(\.finished)) }
    return value ?? .object([:])
  }
}

private struct ValueEncoder: Encoder {
  let slot: Slot
  let codingPath: [any CodingKey]
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    if slot.members == nil { slot.members = [:] }
    return KeyedEncodingContainer(KeyedSlot<Key>(slot: slot, codingPath: codingPath))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    if slot.elements == nil { slot.elements = [] }
    return UnkeyedSlot(slot: slot, codingPath: codingPath)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer {
    SingleSlot(slot: slot, codingPath: codingPath)
  }
}

private struct KeyedSlot<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let slot: Slot
  let codingPath: [any CodingKey]

  private func child(_ key: Key) -> Slot {
    let child = Slot()
    slot.members?[key.stringValue] = child
    return child
  }

  func encodeNil(forKey key: Key) { child(key).value = .null }

  func encode<T: Encodable>(_ value: T, forKey key: Key) throws {
    try encodeLeaf(value, into: child(key), path: codingPath + [key])
  }

  func encodeIfPresent<T: Encodable>(_ value: T?, forKey key: Key) throws {
    if let value { try encode(value, forKey: key) } else { encodeNil(forKey: key) }
  }

  func encodeIfPresent(_ value: Bool?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: String?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Double?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Float?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int32?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int64?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: UInt64?, forKey key: Key) throws { try optional(value, key) }

  private func optional<T: Encodable>(_ value: T?, _ key: Key) throws {
    if let value { try encode(value, forKey: key) } else { encodeNil(forKey: key) }
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy keyType: Nested.Type, forKey key: Key
  ) -> KeyedEncodingContainer<Nested> {
    ValueEncoder(slot: child(key), codingPath: codingPath + [key]).container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
    ValueEncoder(slot: child(key), codingPath: codingPath + [key]).unkeyedContainer()
  }

  func superEncoder() -> any Encoder { ValueEncoder(slot: slot, codingPath: codingPath) }

  func superEncoder(forKey key: Key) -> any Encoder {
    ValueEncoder(slot: child(key), codingPath: codingPath + [key])
  }
}

private struct UnkeyedSlot: UnkeyedEncodingContainer {
  let slot: Slot
  let codingPath: [any CodingKey]
  var count: Int { slot.elements?.count ?? 0 }

  private func child() -> Slot {
    let child = Slot()
    slot.elements?.append(child)
    return child
  }

  func encodeNil() { child().value = .null }

  func encode<T: Encodable>(_ value: T) throws {
    try encodeLeaf(value, into: child(), path: codingPath)
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy keyType: Nested.Type
  ) -> KeyedEncodingContainer<Nested> {
    ValueEncoder(slot: child(), codingPath: codingPath).container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer {
    ValueEncoder(slot: child(), codingPath: codingPath).unkeyedContainer()
  }

  func superEncoder() -> any Encoder { ValueEncoder(slot: child(), codingPath: codingPath) }
}

private struct SingleSlot: SingleValueEncodingContainer {
  let slot: Slot
  let codingPath: [any CodingKey]

  func encodeNil() { slot.value = .null }

  func encode<T: Encodable>(_ value: T) throws {
    try encodeLeaf(value, into: slot, path: codingPath)
  }
}

/// Writes a leaf as a JSON scalar and anything else through its own `encode(to:)`.
///
/// Leaves must be caught here: `Int.encode(to:)` would call this function again without end.
private func encodeLeaf<T: Encodable>(
  _ value: T, into slot: Slot, path: [any CodingKey]
) throws {
  switch value {
  case let leaf as Bool: slot.value = .bool(leaf)
  case let leaf as String: slot.value = .string(leaf)
  case let leaf as Double: slot.value = .double(leaf)
  case let leaf as Float: slot.value = .double(decimal(leaf))
  case let leaf as any BinaryInteger:
    guard let whole = Int64(exactly: leaf) else {
      throw EncodingError.invalidValue(
        value, .init(codingPath: path, debugDescription: "beyond a 64-bit integer"))
    }
    slot.value = .int(whole)
  default: try value.encode(to: ValueEncoder(slot: slot, codingPath: path))
  }
}

/// The double with the same shortest decimal text, so that 0.1 as a Float is written as 0.1.
private func decimal(_ value: Float) -> Double {
  Double(value.description) ?? Double(value)
}
