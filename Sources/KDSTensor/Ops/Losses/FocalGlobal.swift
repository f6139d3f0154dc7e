import KDSKernels

/// The numbers of FGD.
public struct FocalGlobalOptions: Codable {
  /// T of both attentions.
  public var temperature: Float
  /// Weight of the attention term.
  public var gamma: Float
  /// Weight of the relation term.
  public var relation: Float
  /// Of the whole, such as 1 / N.
  public var factor: Float

  public init(
    temperature: Float = 0.5, gamma: Float = 5e-4, relation: Float = 5e-6, factor: Float = 1
  ) {
    (self.temperature, self.gamma, self.relation) = (temperature, gamma, relation)
    self.factor = factor
  }

  func check(_ name: String) throws {
    guard temperature > 0, temperature.isFinite, (1 / temperature).isFinite else {
      throw KDSError.argument("\(name): temperature must be positive, not \(temperature)")
    }
    guard gamma.isFinite, relation.isFinite, factor.isFinite else {
      throw KDSError.argument(
        "\(name): gamma, relation and factor must be finite numbers, not \(gamma), \(relation) and "
          + "\(factor)")
    }
  }
}

extension Tensor {
  /// FGD, focal and global distillation (Yang et al., CVPR 2022), of a student's map (self), summed
  /// over the images and multiplied by `factor`:
  ///
  ///     sum mask A^S_T A^C_T (S - T)² + gamma (‖A^S_S - A^S_T‖₁ + ‖A^C_S - A^C_T‖₁)
  ///       + relation ‖R_S(S) - R_T(T)‖²
  ///
  /// with A^S = H W softmax(mean_c |F| / temperature), A^C = C softmax(mean_hw |F| / temperature) and R
  /// a context block. `mask` is alpha M_fg + beta M_bg.
  ///
  /// Each map is read four times and the gradient written once: sums for attention and logits, context,
  /// the context's gradient by the logits, then everything else.
  /// - Shapes: self and teacher (N, C, H, W), blocked or plain; mask (N, 1, H, W). Gradients to the
  ///   student and to the tensors of both blocks; without blocks R is the identity.
  public func focalGlobal(
    teacher: Tensor, mask: Tensor, blocks: (student: ContextBlock, teacher: ContextBlock)? = nil,
    _ options: FocalGlobalOptions = FocalGlobalOptions()
  ) throws -> Tensor {
    let name = "focal_global"
    let maps = try MapPair(name, self, teacher.detached())
    try requireFloats(name, [mask])
    try requireSameShape(
      name, "mask and map (N, 1, H, W)", mask.shape, [shape[0], 1, shape[2], shape[3]])
    try options.check(name)
    try blocks?.student.check(name, channels: shape[1])
    try blocks?.teacher.check(name, channels: shape[1])
    let learned = blocks.map { $0.student.tensors + $0.teacher.tensors } ?? []
    let inputs = [maps.student] + learned
    if count == 0 {
      return try recordLoss(
        name, 0, inputs, inputs.map { input in { _ in try Tensor.zeros(input.shape) } })
    }
    let parts = try FocalParts(maps, mask.plain(), options, blocks)
    guard Tape.tracks(inputs) else { return try Tensor.scalar(Float(parts.value())) }
    let (value, gradients) = try parts.valueAndGradients()
    return try recordLoss(
      name, value, inputs,
      zip(inputs, gradients).map { input, gradient in
        { try gradient.shared($0).reshapedLike(input) }
      })
  }

  /// A plain gradient under the shape of its tensor, off the tape; others as they are.
  fileprivate func reshapedLike(_ other: Tensor) throws -> Tensor {
    shape == other.shape ? self : try reshaped(other.shape)
  }
}

/// Everything that comes before the last pass over both maps.
private struct FocalParts {
  let maps: MapPair
  let options: FocalGlobalOptions
  let student, teacher: FocalSide
  /// factor · mask · A^S_T, (N, H · W).
  let pixels: Tensor
  /// Gradient of the attention term by |s|.
  let pixelSlopes, channelSlopes: Tensor
  /// factor · gamma · N · L_att
  let attention: Double
  /// Difference of what the blocks add, (N, C), on a tape of its own.
  let shift: Tensor

  init(
    _ maps: MapPair, _ mask: Tensor, _ options: FocalGlobalOptions,
    _ blocks: (student: ContextBlock, teacher: ContextBlock)?
  ) throws {
    (self.maps, self.options) = (maps, options)
    let map = maps.geometry
    student = try FocalSide(maps.student, map, options.temperature, blocks?.student)
    teacher = try FocalSide(maps.teacher, map, options.temperature, blocks?.teacher)
    (pixelSlopes, channelSlopes) = (
      try Tensor(uninitialized: [map.images, map.area]),
      try Tensor(uninitialized: [map.images, map.channels])
    )
    let gamma = options.factor * options.gamma
    // |s| enters a pixel's mean with 1 / C and a channel's mean with 1 / (H W).
    let inPixels = Kernels.attentionDistance(
      student.pixels.floats, teacher.pixels.floats, rows: map.images, columns: map.area,
      temperature: options.temperature, scale: gamma / Float(map.channels),
      slopes: pixelSlopes.floats)
    let inChannels = Kernels.attentionDistance(
      student.channels.floats, teacher.channels.floats, rows: map.images, columns: map.channels,
      temperature: options.temperature, scale: gamma / Float(map.area),
      slopes: channelSlopes.floats)
    attention = Double(gamma) * (inPixels + inChannels)
    pixels = try Tensor(uninitialized: [map.images, map.area])
    Kernels.multiply(mask.floats, teacher.pixels.floats, pixels.floats, pixels.count)
    Kernels.scale(pixels.floats, by: options.factor, pixels.floats, pixels.count)
    if let own = student.addition, let other = teacher.addition {
      shift = try own.subtracting(other)
    } else {
      shift = try Tensor.zeros([map.images, map.channels])
    }
  }

  private var weights: FocalWeights {
    FocalWeights(
      pixels: pixels.floats, channels: teacher.channels.floats, shift: shift.floats,
      relation: options.factor * options.relation)
  }

  func value() -> Double {
    attention
      + Kernels.focalGlobal(maps.student.floats, maps.teacher.floats, maps.geometry, weights)
  }

  /// The value, and gradients of the student's map and of the tensors of both blocks.
  func valueAndGradients() throws -> (Double, [Tensor]) {
    let map = maps.geometry
    if shift.isTracked { try Tape.backward(from: shift, seed: try shiftGradient()) }
    let own = try student.logitSlopes(maps.student, map)
    let other = try teacher.logitSlopes(maps.teacher, map)
    let result = try maps.student.uninitializedLike()
    let products = (
      student: try Tensor(uninitialized: [map.images, map.channels]),
      teacher: try Tensor(uninitialized: [map.images, map.channels])
    )
    let sum = Kernels.focalGlobal(
      maps.student.floats, maps.teacher.floats, map, weights,
      FocalGradients(
        slopes: (UnsafePointer(pixelSlopes.floats), UnsafePointer(channelSlopes.floats)),
        attention: student.attention.floats, context: own.context.floats,
        logits: (UnsafePointer(own.logits.floats), UnsafePointer(other.logits.floats)),
        logitWeights: student.logitWeights.floats, map: result.floats,
        products: (products.student.floats, products.teacher.floats)))
    let learned =
      try student.gradients(products.student) + teacher.gradients(products.teacher)
    return (attention + sum, [result] + learned)
  }

  /// By the shift: sum over p of 2 relation (s - t + shift).
  private func shiftGradient() throws -> Tensor {
    let result = try Tensor(uninitialized: shift.shape)
    let factor = 2 * Double(options.factor) * Double(options.relation)
    for i in 0..<result.count {
      let total = Double(student.totals.floats[i]) - Double(teacher.totals.floats[i])
      result.floats[i] = Float(
        factor * (total + Double(maps.geometry.area) * Double(shift.floats[i])))
    }
    return result
  }
}
