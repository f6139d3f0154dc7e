import KDSKernels

extension Tensor {
  /// factor · sum over n, c, y, x of spatial[n, 1, y, x] · channels[n, c] · (S - T)², of a student's
  /// map S (self): what FGD, FGFI, DeFeat, FRS and TID sum up over masks and attention.
  ///
  /// - Shapes: self and teacher (N, C, H, W), blocked or plain; spatial (N, 1, H, W), nil for 1;
  ///   channels (N, C), nil for 1.
  /// - Gradients go to the student and, with the opposite sign, to a teacher that is on the tape;
  ///   none to the weights. An empty map gives 0.
  public func weightedSquaredError(
    teacher: Tensor, spatial: Tensor? = nil, channels: Tensor? = nil, factor: Float = 1
  ) throws -> Tensor {
    let name = "weighted_squared_error"
    let maps = try MapPair(name, self, teacher)
    let (student, other) = (maps.student, maps.teacher)
    let (images, depth) = (shape[0], shape[1])
    if let spatial {
      try requireFloats(name, [spatial])
      try requireSameShape(
        name, "spatial weights and map (N, 1, H, W)", spatial.shape,
        [images, 1, shape[2], shape[3]])
    }
    if let channels {
      try requireFloats(name, [channels])
      try requireSameShape(
        name, "channel weights and map (N, C)", channels.shape, [images, depth])
    }
    guard factor.isFinite else {
      throw KDSError.argument("\(name): factor must be a finite number, not \(factor)")
    }
    let (pixelWeights, channelWeights) = (try spatial?.plain(), try channels?.plain())
    let gradient = Tape.tracks([student, other]) ? try student.uninitializedLike() : nil
    let sum = Kernels.weightedSquares(
      student.floats, other.floats, maps.geometry,
      spatial: pixelWeights.map { UnsafePointer($0.floats) },
      channels: channelWeights.map { UnsafePointer($0.floats) }, scale: factor,
      gradient: gradient?.floats)
    guard let gradient else { return try Tensor.scalar(Float(sum * Double(factor))) }
    return try recordLoss(
      name, sum * Double(factor), [student, other],
      [gradient.shared, { try gradient.multiplied(by: -$0) }])
  }
}
