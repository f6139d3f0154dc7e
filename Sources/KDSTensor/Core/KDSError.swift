/// The engine's one error type. The message names the operation, the argument and the shapes.
///
/// The C boundary maps each case to a status code and Python to an exception class.
public enum KDSError: Error, CustomStringConvertible {
  /// A value outside what the operation accepts (Python: `kd.ArgumentError`).
  case argument(String)
  /// Shapes that do not go together (Python: `kd.ShapeError`).
  case shape(String)
  /// A damaged or unexpected file or document (Python: `kd.FormatError`).
  case format(String)
  /// A library underneath refused (oneDNN, LAPACK) or memory ran out (Python: `kd.KDSError`).
  case runtime(String)

  public var description: String {
    switch self {
    case .argument(let message), .shape(let message), .format(let message), .runtime(let message):
      return message
    }
  }

  /// The status code of the C boundary: `KDS_STATUS_*` in `kds_core.h`.
  public var status: Int32 {
    switch self {
    case .argument: return 1
    case .shape: return 2
    case .format: return 3
    case .runtime: return 4
    }
  }
}
