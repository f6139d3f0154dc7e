import CKDSwift

@implementation @_cdecl("kds_abi_version")
public func kds_abi_version(_ out_version: UnsafeMutablePointer<Int32>!) -> Int32 {
  guard let out = out_version else { return 1 }
  out.pointee = KDS_ABI_VERSION
  return 0
}
