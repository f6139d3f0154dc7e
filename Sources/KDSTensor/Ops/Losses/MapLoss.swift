import KDSKernels

/// A student's and a teacher's feature map (N, C, H, W) of one layout that the kernels read.
struct MapPair {
  let student, teacher: Tensor
  let geometry: ChannelGeometry

  /// Checks both and brings the teacher into the student's layout.
  /// - Parameter sameChannels: whether unlike channel counts are an error.
  init(_ name: String, _ student: Tensor, _ teacher: Tensor, sameChannels: Bool = true) throws {
    try requireFloats(name, [student, teacher])
    let (s, t) = (student.shape, teacher.shape)
    guard s.count == 4, t.count == 4 else {
      throw KDSError.shape("\(name): student \(s) and teacher \(t) must be maps (N, C, H, W)")
    }
    guard s[0] == t[0], s[2...] == t[2...], !sameChannels || s[1] == t[1] else {
      throw KDSError.shape(
        "\(name): student \(s) and teacher \(t) must have one shape"
          + (sameChannels ? "" : " apart from their channels"))
    }
    self.student = try mapForKernels(student)
    self.teacher = try teacher.inLayout(self.student.layout)
    geometry = ChannelGeometry(self.student)
  }

  /// The teacher's sizes, which differ from the student's in channels at most.
  var teacherGeometry: ChannelGeometry { ChannelGeometry(teacher) }
}

/// The map as floats in a layout that map kernels know: plain, or blocks of 8 or 16.
func mapForKernels(_ map: Tensor) throws -> Tensor {
  let floats = try map.widened()
  return [1, 8, 16].contains(floats.layout.block) ? floats : try floats.plain()
}

/// Puts the value of a loss on the tape; gradients by input were computed along with it.
///
/// - Parameter gradients: for each input a function that gives its gradient for an incoming gradient
///   of `share`, or nil. Called once, and only where the input is tracked.
func recordLoss(
  _ name: String, _ value: Double, _ inputs: [Tensor],
  _ gradients: [((_ share: Float) throws -> Tensor)?]
) throws -> Tensor {
  let result = try Tensor.scalar(Float(value))
  let wanted = inputs.map(\.isTracked)
  return Tape.record(result, name, inputs) { incoming in
    let share = incoming.item
    return try zip(wanted, gradients).map { wanted, gradient in
      wanted ? try gradient?(share) : nil
    }
  }
}

extension Tensor {
  /// A gradient that is there already, for an incoming gradient of `share`.
  func shared(_ share: Float) throws -> Tensor {
    share == 1 ? self : try multiplied(by: share)
  }
}
