/// Reads JSON text (RFC 8259) into a `JSONValue`. Errors name the byte offset.
///
/// Our own, because Foundation would make the library five times larger for one small job. Nesting is
/// limited so that a hostile document cannot exhaust the stack.
struct JSONParser {
  private static let maximumDepth = 128
  private let bytes: [UInt8]
  private var position = 0
  private var depth = 0

  /// Parses a whole document; only white space may follow it.
  static func parse(_ text: String) throws -> JSONValue {
    var parser = JSONParser(bytes: Array(text.utf8))
    let value = try parser.value()
    parser.skipSpace()
    if parser.position < parser.bytes.count { throw parser.failure("text after the end") }
    return value
  }

  private init(bytes: [UInt8]) { self.bytes = bytes }

  private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

  private func failure(_ what: String) -> KDSError {
    .format("JSON: \(what) at byte \(position)")
  }

  private mutating func skipSpace() {
    while let byte = current, byte == 0x20 || (0x09...0x0D).contains(byte) { position += 1 }
  }

  private mutating func take(_ character: Character) -> Bool {
    skipSpace()
    guard current == character.asciiValue else { return false }
    position += 1
    return true
  }

  private mutating func value() throws -> JSONValue {
    skipSpace()
    guard let byte = current else { throw failure("unexpected end") }
    switch byte {
    case UInt8(ascii: "{"): return try nested { try $0.object() }
    case UInt8(ascii: "["): return try nested { try $0.array() }
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
    default: return try word()
    }
  }

  private mutating func nested(
    _ body: (inout JSONParser) throws -> JSONValue
  ) throws -> JSONValue {
    depth += 1
    defer { depth -= 1 }
    if depth > JSONParser.maximumDepth { throw failure("nested too deeply") }
    position += 1
    return try body(&self)
  }

  private mutating func object() throws -> JSONValue {
    var members: [String: JSONValue] = [:]
    if take("}") { return .object(members) }
    repeat {
      skipSpace()
      guard current == UInt8(ascii: "\"") else { throw failure("expected a key in quotes") }
      let key = try string()
      if members[key] != nil { throw failure("key \"\(key)\" appears twice") }
      guard take(":") else { throw failure("expected ':' after key \"\(key)\"") }
      members[key] = try value()
    } while take(",")
    guard take("}") else { throw failure("expected ',' or '}'") }
    return .object(members)
  }

  private mutating func array() throws -> JSONValue {
    var values: [JSONValue] = []
    if take("]") { return .array(values) }
    repeat { values.append(try value()) } while take(",")
    guard take("]") else { throw failure("expected ',' or ']'") }
    return .array(values)
  }

  private mutating func word() throws -> JSONValue {
    for (name, value) in [
      ("null", JSONValue.null), ("true", .bool(true)), ("false", .bool(false)),
    ] where bytes[position...].starts(with: name.utf8) {
      position += name.utf8.count
      return value
    }
    throw failure("expected a value")
  }

  private mutating func number() throws -> JSONValue {
    let start = position
    while let byte = current, JSONParser.numberBytes.contains(byte) { position += 1 }
    let digits = String(decoding: bytes[start..<position], as: UTF8.self)
    if let whole = Int64(digits) { return .int(whole) }
    // Swift reads more than JSON allows ("1.", ".5"); such text is harmless and accepted.
    guard let value = Double(digits), value.isFinite else {
      position = start
      throw failure("'\(digits)' is not a number")
    }
    return .double(value)
  }

  private static let numberBytes = Set("+-.0123456789eE".utf8)

  private mutating func string() throws -> String {
    position += 1
    var output: [UInt8] = []
    while let byte = current {
      position += 1
      if byte == UInt8(ascii: "\"") { return String(decoding: output, as: UTF8.self) }
      if byte == UInt8(ascii: "\\") {
        output.append(contentsOf: Array(String(try escaped()).utf8))
      } else if byte < 0x20 {
        throw failure("control character inside a string")
      } else {
        output.append(byte)
      }
    }
    throw failure("string without an end")
  }

  private mutating func escaped() throws -> Unicode.Scalar {
    guard let byte = current else { throw failure("string without an end") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"): return try unicodeEscape()
    default: throw failure("unknown escape")
    }
  }

  private mutating func unicodeEscape() throws -> Unicode.Scalar {
    let first = try hexadecimal()
    if let scalar = Unicode.Scalar(first) { return scalar }
    // Beyond the basic plane: two halves, the high one first.
    guard (0xD800..<0xDC00).contains(first), bytes[position...].starts(with: "\\u".utf8) else {
      throw failure("half of a surrogate pair")
    }
    position += 2
    let second = try hexadecimal()
    guard (0xDC00..<0xE000).contains(second),
      let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
    else { throw failure("half of a surrogate pair") }
    return scalar
  }

  private mutating func hexadecimal() throws -> UInt32 {
    guard position + 4 <= bytes.count,
      bytes[position..<position + 4].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
      let value = UInt32(
        String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16)
    else { throw failure("expected four hexadecimal digits") }
    position += 4
    return value
  }
}
