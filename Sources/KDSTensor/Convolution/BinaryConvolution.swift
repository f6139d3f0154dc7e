import KDSKernels

/// Filters of a binary convolution as inference wants them: signs as bits, and α.
public final class PackedBinaryFilters {
  /// (K, C, kh, kw)
  public let shape: [Int]
  fileprivate let bits, sums: Storage
  /// α, with zeros up to whole blocks of 16.
  fileprivate let scale: Tensor

  /// - Throws: `KDSError.shape` for a weight that is not (K, C, kh, kw), or whose filters are too long for
  ///   sums that floats hold exactly.
  public init(_ weight: Tensor) throws {
    try requireFloats("binary_conv2d", [weight])
    let weight = try Tape.withoutGrad { try weight.plain() }
    let filters = try FilterGeometry(weight, "binary_conv2d")
    guard weight.rank == 4, filters.length < 1 << 22 else {
      throw KDSError.shape(
        "binary_conv2d: weight \(weight.shape) must be (K, C, kh, kw) with fewer than 2^22 numbers each"
      )
    }
    shape = weight.shape
    let kernel = (height: shape[2], width: shape[3])
    let geometry = BinaryGeometry(
      images: 1, channels: shape[1], height: kernel.height, width: kernel.width, filters: shape[0],
      kernel: kernel)
    bits = try Storage(byteCount: geometry.filterWords * MemoryLayout<UInt64>.size)
    sums = try Storage(byteCount: geometry.filterBlocks * geometry.taps * 16 * 4)
    scale = try Tensor.zeros([geometry.filterBlocks * 16])
    Kernels.packFilters(
      weight.floats, geometry, bits.pointer.assumingMemoryBound(to: UInt64.self),
      sums: sums.pointer.assumingMemoryBound(to: Int32.self))
    Kernels.filterScales(weight.floats, filters, scale.floats)
  }

  /// α and bias, with a factor and an addition behind: (s · α + b) · f + t = s · αf + (bf + t).
  fileprivate func vectors(
    _ bias: Tensor?, _ behind: (scale: Tensor, shift: Tensor)?
  ) throws -> (scale: Tensor, added: Tensor) {
    let added = try Tensor.zeros(scale.shape)
    if let bias { added.floats.update(from: try bias.plain().floats, count: bias.count) }
    guard let behind else { return (scale, added) }
    guard behind.scale.shape == [shape[0]], behind.shift.shape == [shape[0]] else {
      throw KDSError.shape(
        "binary_conv2d: \(behind.scale.shape) and \(behind.shift.shape) must be (\(shape[0]))")
    }
    let product = try Tensor.zeros(scale.shape)
    for filter in 0..<shape[0] {
      let factor = behind.scale.floats[filter]
      product.floats[filter] = scale.floats[filter] * factor
      added.floats[filter] = added.floats[filter] * factor + behind.shift.floats[filter]
    }
    return (product, added)
  }

  fileprivate func view(_ scale: Tensor, _ added: Tensor) -> BinaryFilters {
    BinaryFilters(
      bits: bits.pointer.assumingMemoryBound(to: UInt64.self),
      sums: sums.pointer.assumingMemoryBound(to: Int32.self), scale: scale.floats,
      bias: added.floats)
  }
}

extension Tensor {
  /// This weight (K, C, kh, kw) packed for `binaryConv2d`; kept until it changes.
  public func packedSigns() throws -> PackedBinaryFilters {
    try packedWeights().signs(version: version) { try PackedBinaryFilters(self) }
  }

  /// A convolution of signs (XNOR-Net, Rastegari et al. 2016): sign(I) with α · sign(W).
  ///
  /// Off the tape bits are counted; on it floats are convolved, and gradients go straight through the signs.
  /// Both give the same up to the rounding of sums. Padding adds nothing either way.
  ///
  /// - Shapes: self (N, C, H, W), weight (K, C, kh, kw), bias (K); result (N, K, H', W').
  /// - Parameters:
  ///   - rule: the gradient of the weights; `.official` also ends the signs' gradient before |x| = 1.
  ///   - inputScale: multiplies by K, the window's mean of |I| (equation 11); no gradient goes through it.
  /// - Throws: `KDSError.shape` for sizes that do not fit, `KDSError.argument` for groups.
  public func binaryConv2d(
    _ weight: Tensor, bias: Tensor? = nil, _ options: ConvolutionOptions = ConvolutionOptions(),
    rule: BinaryGradient = .paper, inputScale: Bool = false
  ) throws -> Tensor {
    try requireFloats("binary_conv2d", [self, weight] + (bias.map { [$0] } ?? []))
    _ = try binarySizes(weight.shape, bias, options)
    guard Tape.tracks([self, weight, bias]) else {
      return try binaryConv2d(
        weight.packedSigns(), bias: bias, options, inputScale: inputScale)
    }
    let signs = try binarySign(strict: rule == .official)
    let filters = try weight.binaryFilters(rule)
    guard inputScale else { return try signs.conv2d(filters, bias: bias, options) }
    var bare = options
    bare.activation = .none
    let scales = try Tape.withoutGrad {
      try detached().inputScales(Size2(weight.shape[2], weight.shape[3]), options)
    }
    var result = try signs.conv2d(filters, bare).multiplied(by: scales)
    if let bias { result = try result.adding(bias.reshaped([1, bias.count, 1, 1])) }
    return options.activation == .relu ? try result.relu() : result
  }

  /// The same by counting bits, off the tape, with filters packed before.
  ///
  /// - Parameters:
  ///   - affine: a factor and an addition per channel (C) before the sign, as of a normalization in front;
  ///     not together with `inputScale`.
  ///   - behind: a factor and an addition per filter (K) on the result, before the activation.
  public func binaryConv2d(
    _ filters: PackedBinaryFilters, bias: Tensor? = nil,
    _ options: ConvolutionOptions = ConvolutionOptions(), inputScale: Bool = false,
    affine: (scale: Tensor, shift: Tensor)? = nil, behind: (scale: Tensor, shift: Tensor)? = nil
  ) throws -> Tensor {
    if layout == .half {
      return try widened().binaryConv2d(
        filters, bias: bias, options, inputScale: inputScale, affine: affine, behind: behind)
    }
    return try Tape.withoutGrad {
      try requireFloats("binary_conv2d", [self])
      let geometry = try binarySizes(filters.shape, bias, options)
      let result = try Tensor(
        uninitialized: [shape[0], filters.shape[0], geometry.outHeight, geometry.outWidth],
        layout: .preferred)
      let bits = try signBits(geometry, affine)
      let map =
        inputScale ? try inputScales(Size2(filters.shape[2], filters.shape[3]), options) : nil
      let (scale, added) = try filters.vectors(bias, behind)
      Kernels.binaryConvolution(
        bits.pointer.assumingMemoryBound(to: UInt64.self), filters.view(scale, added),
        map: map?.floats, relu: options.activation == .relu, geometry, result.floats,
        block: result.layout.block)
      return result
    }
  }

  private func signBits(
    _ geometry: BinaryGeometry, _ affine: (scale: Tensor, shift: Tensor)?
  ) throws -> Storage {
    let source = layout == .plain ? try inLayout(.preferred) : self
    let bits = try Storage(byteCount: geometry.images * geometry.imageWords * 8)
    let target = bits.pointer.assumingMemoryBound(to: UInt64.self)
    guard let affine else {
      Kernels.packSigns(source.floats, MapGeometry(source), geometry, target)
      return bits
    }
    let (scale, shift) = (try inBlocks(affine.scale), try inBlocks(affine.shift))
    Kernels.packSigns(
      source.floats, MapGeometry(source),
      affine: (UnsafePointer(scale.floats), UnsafePointer(shift.floats)),
      geometry, target)
    return bits
  }

  /// A number per channel, with zeros up to whole blocks of 16.
  private func inBlocks(_ values: Tensor) throws -> Tensor {
    guard values.shape == [shape[1]] else {
      throw KDSError.shape(
        "binary_conv2d: \(values.shape) must be (\(shape[1])) for input \(shape)")
    }
    let result = try Tensor.zeros([(values.count + 15) / 16 * 16])
    result.floats.update(from: values.floats, count: values.count)
    return result
  }

  /// K of equation 11, (N, 1, H', W'): the channels' mean of |I|, averaged over the window. Padding counts
  /// as zeros.
  func inputScales(_ kernel: Size2, _ options: ConvolutionOptions) throws -> Tensor {
    let box = try Tensor(
      filled: 1 / Float(kernel.height * kernel.width), shape: [1, 1, kernel.height, kernel.width])
    var bare = options
    bare.activation = .none
    return try plain().abs().mean(axes: [1], keepDims: true).conv2d(box, bare).widened().plain()
  }

  private func binarySizes(
    _ weight: [Int], _ bias: Tensor?, _ options: ConvolutionOptions
  ) throws -> BinaryGeometry {
    let sizes = try ConvolutionGeometry(
      shape, weight, bias?.shape, options, name: "binary_conv2d")
    guard options.groups == 1 else {
      throw KDSError.argument("binary_conv2d: groups \(options.groups) must be 1")
    }
    let (s, p, d) = (options.stride, options.padding, options.dilation)
    let geometry = BinaryGeometry(
      images: shape[0], channels: shape[1], height: shape[2], width: shape[3],
      filters: sizes.weightShape[0], kernel: (weight[2], weight[3]), stride: (s.height, s.width),
      padding: (p.top, p.left, p.bottom, p.right), dilation: (d.height, d.width))
    try requireSize(
      "binary_conv2d",
      [shape[0], geometry.paddedHeight, geometry.paddedWidth, geometry.words])
    return geometry
  }
}
