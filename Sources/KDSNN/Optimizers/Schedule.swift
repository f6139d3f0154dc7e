import KDSTensor

#if canImport(Glibc)
  import Glibc
#endif

/// How the learning rate moves over the steps of a run.
public struct ScheduleConfiguration: Codable, Equatable {
  /// "constant", "step", "linear" or "cosine".
  public var name = "constant"
  /// Steps of the run; linear and cosine end there.
  public var total_steps = 0
  /// Steps of linear warm-up from `warmup_start` · lr.
  public var warmup_steps = 0
  public var warmup_start = 0.001
  /// Steps at which "step" multiplies the rate by `gamma`.
  public var milestones: [Int] = []
  public var gamma = 0.1
  /// Linear and cosine end at this factor.
  public var final_factor = 0.0

  public init() {}

  public func check() throws {
    guard ["constant", "step", "linear", "cosine"].contains(name) else {
      throw KDSError.argument(
        "schedule: \"\(name)\" is none of \"constant\", \"step\", \"linear\", \"cosine\"")
    }
    guard total_steps >= 0, warmup_steps >= 0, gamma.isFinite, final_factor.isFinite,
      warmup_start.isFinite
    else {
      throw KDSError.argument("schedule: steps must not be negative and factors finite")
    }
    guard total_steps > 0 || name == "constant" || name == "step" else {
      throw KDSError.argument("schedule.total_steps: \"\(name)\" needs the number of steps")
    }
  }

  /// Factor on the base learning rate at a step, counted from 0:
  /// warm-up: start + (1 − start) · (step + 1) / warmup; cosine: f + (1 − f)(1 + cos πt) / 2 with t
  /// running from 0 after warm-up to 1 at the end.
  public func factor(step: Int) -> Double {
    if step < warmup_steps {
      return warmup_start + (1 - warmup_start) * Double(step + 1) / Double(warmup_steps)
    }
    let span = Double(max(1, total_steps - warmup_steps))
    let progress = min(1, Double(step - warmup_steps) / span)
    switch name {
    case "linear": return 1 + (final_factor - 1) * progress
    case "cosine": return final_factor + (1 - final_factor) * (1 + cos(.pi * progress)) / 2
    case "step": return milestones.reduce(1.0) { step >= $1 ? $0 * gamma : $0 }
    default: return 1
    }
  }
}
