import KDSDetection
import KDSNN
import KDSTensor

/// Carries a student map to the shape of a teacher map: a 1×1 convolution for the channels (Chen's
/// adaptation layer, also when the counts match), then crop or bilinear resizing for the space.
///
/// It belongs to the run: trained with the student, saved with it, never exported.
public final class FeatureConnector: Module {
  public let student, teacher: FeatureDescription
  /// What was done about unlike map sizes, as last seen; for the shape report.
  public private(set) var spatialNote = "not seen yet"

  public init(
    student: FeatureDescription, teacher: FeatureDescription, adaptation: Bool,
    _ initializer: Initializer
  ) throws {
    guard adaptation || student.channels == teacher.channels else {
      throw KDSError.shape(
        "connector: student \(student.name) has \(student.channels) channels and teacher \(teacher.name) "
          + "\(teacher.channels); without adaptation they must be equal (use adaptation=True)")
    }
    self.student = student
    self.teacher = teacher
    super.init()
    if adaptation {
      child(
        "adaptation",
        try Conv2d(student.channels, teacher.channels, kernel: 1, padding: 0, initializer))
    }
  }

  /// Both maps in one shape; the teacher's may lose a border row or column.
  public func callAsFunction(
    _ studentMap: Tensor, _ teacherMap: Tensor
  ) throws -> (student: Tensor, teacher: Tensor) {
    var map = studentMap
    if childModule("adaptation") != nil { map = try layer("adaptation")(map) }
    let (from, to) = (Array(map.shape[2...]), Array(teacherMap.shape[2...]))
    if from == to {
      spatialNote = "same \(Size2(to[0], to[1]))"
      return (map, teacherMap)
    }
    if abs(from[0] - to[0]) <= 1 && abs(from[1] - to[1]) <= 1 {
      // Rounding and padding of unlike backbones put the maps off by one: the border is dropped.
      let size = Size2(min(from[0], to[0]), min(from[1], to[1]))
      spatialNote =
        "cropped to \(size) (student \(Size2(from[0], from[1])), teacher \(Size2(to[0], to[1])))"
      return (try map.cropped(size), try Tape.withoutGrad { try teacherMap.cropped(size) })
    }
    spatialNote = "student \(Size2(from[0], from[1])) resized to teacher \(Size2(to[0], to[1]))"
    return (try map.resizedBilinear(Size2(to[0], to[1])), teacherMap)
  }

  /// One line of the shape report.
  public var report: ConnectorReport {
    ConnectorReport(
      student: student.name, teacher: teacher.name,
      channels: childModule("adaptation") == nil
        ? "\(student.channels), no adaptation"
        : "\(student.channels) -> \(teacher.channels) by 1x1 convolution",
      strides: "\(student.stride) / \(teacher.stride)", space: spatialNote)
  }
}

/// What a connector does, in words.
public struct ConnectorReport: Codable {
  public var student, teacher, channels, strides, space: String
}
