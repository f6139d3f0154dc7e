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
}

extension Tensor {
  /// FGD, focal and global distillation (Yang et al., CVPR 2022), of a student's map (self), summed
  /// over the images and multiplied by `factor`:
  ///
  ///     sum mask A^S_T A^C_T (S - T)² + gamma (‖A^S_S - A^S_T‖₁ + ‖A^C_S - A^C_T‖₁)
  ///       + relation ‖S - T + shift‖²
  ///
  /// with A^S = H W softmax(mean_c |F| / temperature), A^C = C softmax(mean_hw |F| / temperature). `mask`
  /// is alpha M_fg + beta M_bg, `shift` the difference of the two context blocks' additions.
  ///
  /// - Shapes: self and teacher (N, C, H, W), blocked or plain; mask (N, 1, H, W); shift (N, C), nil
  ///   for 0. Gradients to the student and the shift.
  public func focalGlobal(
    teacher: Tensor, mask: Tensor, shift: Tensor? = nil,
    _ options: FocalGlobalOptions = FocalGlobalOptions()
  ) throws -> Tensor {
    let name = "focal_global"
    let maps = try MapPair(name, self, teacher.detached())
    let (images, channels, area) = (shape[0], shape[1], shape[2] * shape[3])
    try requireFloats(name, [mask])
    try requireSameShape(
      name, "mask and map (N, 1, H, W)", mask.shape, [images, 1, shape[2], shape[3]])
    try options.check(name)
    let added = try shift ?? Tensor.zeros([images, channels])
    try requireFloats(name, [added])
    try requireSameShape(name, "shift and map (N, C)", added.shape, [images, channels])
    let parts = try FocalParts(maps, mask.plain(), options)
    let weights = FocalWeights(
      pixels: parts.pixels.floats, channels: parts.channels.floats, shift: added.floats,
      relation: options.factor * options.relation, pixelSlopes: parts.pixelSlopes.floats,
      channelSlopes: parts.channelSlopes.floats)
    let student = maps.student
    var gradients: (map: Tensor, shift: Tensor)?
    if Tape.tracks([student, added]) {
      gradients = (try student.uninitializedLike(), try Tensor(uninitialized: [images, channels]))
    }
    let sum = Kernels.focalGlobal(
      student.floats, maps.teacher.floats, maps.geometry, weights,
      gradients.map { FocalGradients(map: $0.map.floats, shift: $0.shift.floats) })
    let value = area > 0 ? sum + parts.attention : 0
    guard let gradients else { return try Tensor.scalar(Float(value)) }
    return try recordLoss(
      name, value, [student, added], [gradients.map.shared, gradients.shift.shared])
  }
}

extension FocalGlobalOptions {
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

/// Attention of both maps and what follows from it.
private struct FocalParts {
  /// factor · mask · A^S_T, (N, H · W), and A^C_T, (N, C).
  let pixels, channels: Tensor
  /// Gradient of the attention term by |s|.
  let pixelSlopes, channelSlopes: Tensor
  /// factor · gamma · L_att · N
  let attention: Double

  init(_ maps: MapPair, _ mask: Tensor, _ options: FocalGlobalOptions) throws {
    let map = maps.geometry
    let own = try attentionOf(maps.student, map, options.temperature)
    let other = try attentionOf(maps.teacher, map, options.temperature)
    pixelSlopes = try Tensor(uninitialized: [map.images, map.area])
    channelSlopes = try Tensor(uninitialized: [map.images, map.channels])
    let gamma = options.factor * options.gamma
    // |s| enters a pixel's mean with 1 / C and a channel's mean with 1 / (H W).
    let inPixels = Kernels.attentionDistance(
      own.pixels.floats, other.pixels.floats, rows: map.images, columns: map.area,
      temperature: options.temperature, scale: gamma / Float(max(1, map.channels)),
      slopes: pixelSlopes.floats)
    let inChannels = Kernels.attentionDistance(
      own.channels.floats, other.channels.floats, rows: map.images, columns: map.channels,
      temperature: options.temperature, scale: gamma / Float(max(1, map.area)),
      slopes: channelSlopes.floats)
    attention = Double(gamma) * (inPixels + inChannels)
    pixels = try Tensor(uninitialized: [map.images, map.area])
    Kernels.multiply(mask.floats, other.pixels.floats, pixels.floats, pixels.count)
    Kernels.scale(pixels.floats, by: options.factor, pixels.floats, pixels.count)
    channels = other.channels
  }
}

/// A^S (N, H · W) and A^C (N, C) of a map.
private func attentionOf(
  _ tensor: Tensor, _ map: ChannelGeometry, _ temperature: Float
) throws -> (pixels: Tensor, channels: Tensor) {
  let pixels = try Tensor(uninitialized: [map.images, map.area])
  let channels = try Tensor(uninitialized: [map.images, map.channels])
  Kernels.meanMagnitudes(tensor.floats, map, pixels: pixels.floats, channels: channels.floats)
  Kernels.focalAttention(
    pixels.floats, pixels.floats, rows: map.images, columns: map.area, temperature: temperature)
  Kernels.focalAttention(
    channels.floats, channels.floats, rows: map.images, columns: map.channels,
    temperature: temperature)
  return (pixels, channels)
}
