import COneDNN
import COpenMP

/// In which numbers convolutions compute.
///
/// Inside `withHalf` they read and write bfloat16 maps (`Layout.half`) and accumulate in float32; weights,
/// their gradients, biases, statistics and losses stay float32. Whatever has no bfloat16 form converts.
public enum Precision {
  /// Whether this thread is inside `withHalf`.
  public static var isHalf: Bool { kds_half_depth().pointee > 0 }

  /// Whether this processor has bfloat16 instructions for convolutions.
  public static let hasHalf = kds_dnn_has_bfloat16() != 0

  /// Runs `body` with bfloat16 convolutions on this thread, if `wanted`.
  public static func withHalf<Result>(
    _ wanted: Bool = true, _ body: () throws -> Result
  ) rethrows -> Result {
    let change: Int32 = wanted ? 1 : 0
    kds_half_depth().pointee += change
    defer { kds_half_depth().pointee -= change }
    return try body()
  }

  /// "fp32" or "bf16", as options name it.
  ///
  /// - Throws: `KDSError.argument` for another name, or bf16 where the processor has no such instructions.
  public static func isHalf(_ name: String, _ argument: String) throws -> Bool {
    switch name {
    case "fp32": return false
    case "bf16":
      guard hasHalf else {
        throw KDSError.argument(
          "\(argument): bf16 needs a processor with AVX512-BF16 or AMX, which this one has not")
      }
      return true
    default: throw KDSError.argument("\(argument): \"\(name)\" is neither \"fp32\" nor \"bf16\"")
    }
  }
}
