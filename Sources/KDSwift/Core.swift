import CKDSwift
import COneDNN
import COpenBLAS
import KDSKernels
import KDSTensor

/// The version of the engine; the Python package carries the same and compares.
let engineVersion = "0.1.0"

@implementation @_cdecl("kds_abi_version")
public func kds_abi_version(_ out_version: UnsafeMutablePointer<Int32>?) -> Int32 {
  boundary { try required(out_version, "out_version").pointee = KDS_ABI_VERSION }
}

@implementation @_cdecl("kds_build_info")
public func kds_build_info(
  _ capacity: Int64, _ out_needed: UnsafeMutablePointer<Int64>?,
  _ out_text: UnsafeMutablePointer<CChar>?
) -> Int32 {
  boundary {
    try write(StrictJSON.encode(BuildInfo()), capacity: capacity, out_needed, out_text)
  }
}

@implementation @_cdecl("kds_set_num_threads")
public func kds_set_num_threads(_ count: Int32) -> Int32 {
  boundary { Threads.count = try checked(count, "count", in: 1...1024) }
}

@implementation @_cdecl("kds_get_num_threads")
public func kds_get_num_threads(_ out_count: UnsafeMutablePointer<Int32>?) -> Int32 {
  boundary { try required(out_count, "out_count").pointee = Int32(Threads.count) }
}

@implementation @_cdecl("kds_live_handles")
public func kds_live_handles(_ out_count: UnsafeMutablePointer<Int64>?) -> Int32 {
  boundary { try required(out_count, "out_count").pointee = Int64(Handle.liveCount) }
}

@implementation @_cdecl("kds_memory_stats")
public func kds_memory_stats(
  _ reset_peak: Int32, _ out_in_use: UnsafeMutablePointer<Int64>?,
  _ out_cached: UnsafeMutablePointer<Int64>?, _ out_peak: UnsafeMutablePointer<Int64>?,
  _ out_allocations: UnsafeMutablePointer<Int64>?
) -> Int32 {
  boundary {
    let now = MemoryPool.statistics
    try required(out_in_use, "out_in_use").pointee = Int64(now.bytesInUse)
    try required(out_cached, "out_cached").pointee = Int64(now.bytesCached)
    try required(out_peak, "out_peak").pointee = Int64(now.peakBytes)
    try required(out_allocations, "out_allocations").pointee = Int64(now.systemAllocations)
    if reset_peak != 0 { MemoryPool.resetPeak() }
  }
}

@implementation @_cdecl("kds_release_memory")
public func kds_release_memory() -> Int32 {
  boundary { MemoryPool.releaseCached() }
}

@implementation @_cdecl("kds_set_conv_plan")
public func kds_set_conv_plan(_ mode: Int32) -> Int32 {
  boundary {
    let mode = try checked(mode, "mode", in: 0...3)
    ConvolutionPlan.mode = ConvolutionPlan.Mode(rawValue: Int32(mode)) ?? .static
  }
}

/// What `kds_build_info` reports.
private struct BuildInfo: Encodable {
  let version = engineVersion
  let abi = KDS_ABI_VERSION
  let isa = String(cString: kdswift_compiled_isa())
  let onednn = oneDNNVersion()
  let openblas = openBLASConfiguration()
  let threads = Threads.count
}

private func oneDNNVersion() -> String {
  var (major, minor, patch): (Int32, Int32, Int32) = (0, 0, 0)
  kds_dnn_version(&major, &minor, &patch)
  return "\(major).\(minor).\(patch)"
}

private func openBLASConfiguration() -> String {
  guard let text = openblas_get_config() else { return "unknown" }
  return String(cString: text)
}
