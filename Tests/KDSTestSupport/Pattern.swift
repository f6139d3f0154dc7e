import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// The numbers of `tools/fixtures/pattern.py`, exactly: hashes of the positions in [-0.5, 0.5).
public func pattern(
  _ shape: [Int], key: UInt64, scale: Float = 1, offset: Float = 0
) throws -> Tensor {
  let result = try Tensor(uninitialized: shape)
  for index in 0..<result.count {
    var x = UInt32(truncatingIfNeeded: UInt64(index) &* 2_654_435_761 &+ key &* 40503 &+ 12345)
    for (shift, factor) in [(15, 2_246_822_519), (13, 3_266_489_917), (16, 1)] as [(Int, UInt32)] {
      x ^= x >> UInt32(shift)
      x = x &* factor
    }
    result.floats[index] = (Float(x >> 8) / 16_777_216 - 0.5) * scale + offset
  }
  return result
}

/// The text of a file in Tests/Fixtures; a missing one fails the test.
public func fixtureText(_ name: String, tests: String = #filePath) throws -> String {
  let folder = tests.split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
  let path = folder.joined(separator: "/") + "/Fixtures/" + name
  guard let file = fopen(path, "r") else { throw KDSError.format("\(path) is missing") }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65536)
  while true {
    let count = fread(&buffer, 1, buffer.count, file)
    if count == 0 { break }
    bytes.append(contentsOf: buffer[0..<count])
  }
  return String(decoding: bytes, as: UTF8.self)
}
