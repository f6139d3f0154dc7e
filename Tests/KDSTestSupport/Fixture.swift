import FoundationEssentials

/// A folder of golden values under Tests/Fixtures, written by a script in tools/fixtures.
///
/// A missing or damaged fixture throws: a test that cannot find its expectation has to fail.
public struct Fixture {
  /// Why a fixture could not be read, and how to make it again.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  private struct Manifest: Decodable {
    struct Entry: Decodable {
      let dtype: String
      let shape: [Int]
      let offset: Int
    }
    let generator: String
    let numbers: [String: Double]
    let arrays: [String: Entry]
  }

  private let name: String
  private let manifest: Manifest
  private let bytes: [UInt8]

  /// Reads Tests/Fixtures/`name`.
  public init(_ name: String, file: String = #filePath) throws {
    // This file lies in Tests/KDSTestSupport.
    let tests = file.split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
    let folder = tests.joined(separator: "/") + "/Fixtures/" + name
    do {
      let text = try Data(contentsOf: URL(filePath: folder + "/manifest.json"))
      manifest = try JSONDecoder().decode(Manifest.self, from: text)
      bytes = [UInt8](try Data(contentsOf: URL(filePath: folder + "/data.bin")))
    } catch {
      throw Failure(description: "fixture \(folder): \(error); see tools/fixtures")
    }
    self.name = name
  }

  /// A number such as `roi_align_0/aligned`.
  public func number(_ key: String) throws -> Double {
    guard let value = manifest.numbers[key] else { throw missing(key) }
    return value
  }

  /// Shape of an array.
  public func shape(_ key: String) throws -> [Int] {
    guard let entry = manifest.arrays[key] else { throw missing(key) }
    return entry.shape
  }

  /// A float32 array in C order.
  public func floats(_ key: String) throws -> [Float] { try read(key, "float32", Float.self) }

  /// An int64 array in C order.
  public func integers(_ key: String) throws -> [Int64] { try read(key, "int64", Int64.self) }

  private func read<T>(_ key: String, _ dtype: String, _: T.Type) throws -> [T] {
    guard let entry = manifest.arrays[key], entry.dtype == dtype else { throw missing(key) }
    let count = entry.shape.reduce(1, *)
    let size = MemoryLayout<T>.size
    guard entry.offset >= 0, entry.offset + count * size <= bytes.count else {
      throw Failure(description: "fixture \(name): data.bin is too short for \(key)")
    }
    return bytes.withUnsafeBytes { raw in
      (0..<count).map { raw.loadUnaligned(fromByteOffset: entry.offset + $0 * size, as: T.self) }
    }
  }

  private func missing(_ key: String) -> Failure {
    Failure(description: "fixture \(name) has no \(key); regenerate with \(manifest.generator)")
  }
}
