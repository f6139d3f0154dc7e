import CKDSwift
import KDSKernels
import KDSTensor

/// Runs the body of an exported function and turns what it throws into a status and a message.
///
/// Every exported function is `@implementation @_cdecl("kds_x") public func kds_x(...) -> Int32` with
/// this call as its whole body: the thread count reaches the calling thread, and no error leaves Swift
/// in any other way.
func boundary(_ body: () throws -> Void) -> Int32 {
  Threads.installForkHandler()
  Threads.enter()
  do {
    try body()
    return KDS_STATUS_OK
  } catch let error as KDSError {
    kdswift_set_last_error(error.description)
    return error.status
  } catch {
    kdswift_set_last_error("\(error)")
    return KDS_STATUS_RUNTIME
  }
}

/// The pointer, or an error that names the argument when it is NULL.
func required<T>(
  _ pointer: UnsafeMutablePointer<T>?, _ argument: String
) throws -> UnsafeMutablePointer<T> {
  guard let pointer else { throw KDSError.argument("\(argument) is NULL") }
  return pointer
}

/// The pointer, or an error that names the argument when it is NULL.
func required<T>(_ pointer: UnsafePointer<T>?, _ argument: String) throws -> UnsafePointer<T> {
  guard let pointer else { throw KDSError.argument("\(argument) is NULL") }
  return pointer
}

/// A C string as a Swift one; NULL and bytes that are not UTF-8 are errors.
func text(_ pointer: UnsafePointer<CChar>?, _ argument: String) throws -> String {
  guard let string = String(validatingCString: try required(pointer, argument)) else {
    throw KDSError.argument("\(argument) is not valid UTF-8")
  }
  return string
}

/// A size or index from outside, checked against a range.
func checked<T: BinaryInteger>(
  _ value: T, _ argument: String, in range: ClosedRange<Int>
) throws -> Int {
  guard let number = Int(exactly: value), range.contains(number) else {
    throw KDSError.argument(
      "\(argument) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
  }
  return number
}

/// The extents of an array from outside: at most 8 axes, none negative, a product that fits.
func dimensions(
  rank: Int32, _ pointer: UnsafePointer<Int64>?, _ argument: String
) throws -> [Int] {
  let axes = try checked(rank, "rank of \(argument)", in: 0...8)
  if axes == 0 { return [] }
  let extents = UnsafeBufferPointer(start: try required(pointer, argument), count: axes)
  var elements = 1
  for extent in extents {
    let (product, overflow) = elements.multipliedReportingOverflow(by: max(1, Int(extent)))
    // 2^40 elements are 4 TiB of float32: beyond any machine, and far from overflowing byte counts.
    if extent < 0 || overflow || product > 1 << 40 {
      throw KDSError.shape("\(argument) is \(Array(extents)): not a possible shape")
    }
    elements = product
  }
  return extents.map { Int($0) }
}

/// Hands text out by the two-call convention: the length always, the bytes when they fit.
func write(
  _ text: String, capacity: Int64, _ outNeeded: UnsafeMutablePointer<Int64>?,
  _ outText: UnsafeMutablePointer<CChar>?
) throws {
  let needed = try required(outNeeded, "out_needed")
  var text = text
  try text.withUTF8 { bytes in
    needed.pointee = Int64(bytes.count + 1)
    if capacity < Int64(bytes.count + 1) { return }
    let out = UnsafeMutableRawPointer(try required(outText, "out_text"))
    if let base = bytes.baseAddress { out.copyMemory(from: base, byteCount: bytes.count) }
    out.storeBytes(of: 0, toByteOffset: bytes.count, as: UInt8.self)
  }
}
