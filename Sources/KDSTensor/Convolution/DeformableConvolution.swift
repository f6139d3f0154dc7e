import KDSKernels

extension Tensor {
  /// Deformable convolution, v2 with a mask (Zhu et al. 2019), as `torchvision.ops.deform_conv2d`.
  ///
  /// Computes in float32 always.
  ///
  /// - Shapes: self (N, C, H, W), any layout; weight (K, C/groups, kh, kw); offset
  ///   (N, 2·G·kh·kw, H', W'), y before x, for G groups of channels; mask (N, G·kh·kw, H', W') or nil
  ///   for ones; bias (K); result (N, K, H', W') in the layout of self, bfloat16 widened.
  /// - Throws: `KDSError.shape` for sizes that do not fit, `KDSError.argument` for a fused activation.
  public func deformConv2d(
    _ weight: Tensor, offset: Tensor, mask: Tensor? = nil, bias: Tensor? = nil,
    _ options: ConvolutionOptions = ConvolutionOptions()
  ) throws -> Tensor {
    let name = "deform_conv2d"
    if layout == .half {
      return try widened().deformConv2d(weight, offset: offset, mask: mask, bias: bias, options)
    }
    let extras = [mask, bias].compactMap { $0 }
    try requireFloats(name, [self, offset, weight] + extras)
    guard options.activation == .none else {
      throw KDSError.argument("\(name): no activation can be fused")
    }
    let sizes = try ConvolutionGeometry(shape, weight.shape, bias?.shape, options, name: name)
    let (offset, weight, mask) = (try offset.plain(), try weight.plain(), try mask?.plain())
    let pass = DeformablePass(
      shape: try deformableGeometry(sizes, offset, mask, options), filters: weight.shape[0],
      map: MapGeometry(self))
    let result = try Tensor(uninitialized: sizes.resultShape, layout: layout)
    try pass.forward(self, weight, offset, mask, bias, result)
    let inputs = [self, weight, offset] + [mask, bias].compactMap { $0 }
    guard Tape.tracks(inputs) else { return result }
    let wantsInput = isTracked
    return Tape.record(result, name, inputs) { gradient in
      let found = try pass.backward(
        self, weight, offset, mask, gradient, wantsInput: wantsInput, hasBias: bias != nil)
      return [found.input, found.weight, found.offset]
        + [mask == nil ? [] : [found.mask], bias == nil ? [] : [found.bias]].flatMap { $0 }
    }
  }

  private func deformableGeometry(
    _ sizes: ConvolutionGeometry, _ offset: Tensor, _ mask: Tensor?, _ options: ConvolutionOptions
  ) throws -> DeformableGeometry {
    let (result, kernel) = (sizes.resultShape, sizes.weightShape.suffix(2))
    let taps = kernel.reduce(1, *)
    let groups = offset.rank == 4 ? offset.shape[1] / (2 * taps) : 0
    let fits = offset.shape == [shape[0], 2 * groups * taps, result[2], result[3]]
    guard groups > 0, fits, shape[1] % groups == 0 else {
      throw KDSError.shape(
        "deform_conv2d: offset \(offset.shape) must be (N, 2·G·kh·kw, H', W') with G dividing the "
          + "channels of input \(shape): \([shape[0], 2 * taps, result[2], result[3]]) for G = 1")
    }
    let wanted = [shape[0], groups * taps, result[2], result[3]]
    if let mask, mask.shape != wanted {
      throw KDSError.shape("deform_conv2d: mask \(mask.shape) must be \(wanted)")
    }
    // Samples name their pixels by 32-bit numbers.
    guard shape[0] * shape[2] * shape[3] < Int(Int32.max) else {
      throw KDSError.shape("deform_conv2d: input \(shape) has too many pixels")
    }
    let (s, p, d) = (options.stride, options.padding, options.dilation)
    return DeformableGeometry(
      images: shape[0], channels: shape[1], height: shape[2], width: shape[3],
      outHeight: result[2], outWidth: result[3], kernel: (kernel[2], kernel[3]),
      stride: (s.height, s.width), padding: (p.top, p.left), dilation: (d.height, d.width),
      groups: options.groups, offsetGroups: groups)
  }
}

/// The passes of a deformable convolution: tiles of columns, and a matrix product for each.
///
/// Sizes of tiles follow from the shapes alone, so that sums do not depend on the number of threads.
private struct DeformablePass {
  let shape: DeformableGeometry
  let filters: Int
  let map: MapGeometry

  typealias Samples = UnsafeMutablePointer<DeformableSample>

  private var perGroup: Int { filters / shape.groups }
  /// Columns of one group.
  private var depth: Int { shape.columns / shape.groups }
  /// About 4 MB of columns at a time.
  private var tileRows: Int { min(shape.rows, max(16, (1 << 20) / shape.columns)) }

  func forward(
    _ input: Tensor, _ weight: Tensor, _ offset: Tensor, _ mask: Tensor?, _ bias: Tensor?,
    _ result: Tensor
  ) throws {
    let source = try inputRows(input)
    let filterRows = try reordered(weight, inward: true)
    let output = try Tensor(uninitialized: [shape.rows, filters])
    let columns = try Tensor(uninitialized: [tileRows, shape.columns])
    try eachTile(offset, mask) { rows, samples in
      Kernels.deformableColumns(
        source.floats, samples, shape, count: rows.count, columns.floats)
      for group in 0..<shape.groups {
        gemm(
          rows.count, perGroup, depth, columns.floats + group * rows.count * depth, false,
          filterRows.floats + group * perGroup * depth, true,
          output.floats + (group * shape.rows + rows.lowerBound) * perGroup)
      }
    }
    Kernels.mapOfChannelRows(
      output.floats, MapGeometry(result), groups: shape.groups, bias: bias?.floats, result.floats)
  }

  func backward(
    _ input: Tensor, _ weight: Tensor, _ offset: Tensor, _ mask: Tensor?, _ gradient: Tensor,
    wantsInput: Bool, hasBias: Bool
  ) throws -> (input: Tensor?, weight: Tensor, offset: Tensor, mask: Tensor?, bias: Tensor?) {
    let source = try inputRows(input)
    let filterRows = try reordered(weight, inward: true)
    let upstream = try Tensor(uninitialized: [shape.rows, filters])
    Kernels.channelRows(
      gradient.floats, MapGeometry(gradient), groups: shape.groups, upstream.floats)
    let toSource = wantsInput ? try Tensor.zeros(source.shape) : nil
    let toFilters = try Tensor(uninitialized: filterRows.shape)
    let toOffset = try Tensor(uninitialized: offset.shape)
    let toMask = try mask.map { try Tensor(uninitialized: $0.shape) }
    let columns = try Tensor(uninitialized: [tileRows, shape.columns])
    try eachTile(offset, mask) { rows, samples in
      addFilterGradient(rows, samples, source, upstream, columns, toFilters)
      // The columns are used up; their gradients take the place.
      for group in 0..<shape.groups {
        gemm(
          rows.count, depth, perGroup,
          upstream.floats + (group * shape.rows + rows.lowerBound) * perGroup, false,
          filterRows.floats + group * perGroup * depth, false,
          columns.floats + group * rows.count * depth)
      }
      Kernels.deformableSampleGradients(
        source.floats, samples, gradColumns: columns.floats, shape, rows: rows,
        gradOffset: toOffset.floats, gradMask: toMask?.floats)
      if let toSource {
        Kernels.deformableInputGradient(
          samples, gradColumns: columns.floats, shape, count: rows.count, toSource.floats)
      }
    }
    let toInput = try toSource.map { rows in
      let result = try Tensor(uninitialized: input.shape, layout: input.layout)
      Kernels.mapOfChannelRows(rows.floats, map, result.floats)
      return result
    }
    return (
      toInput, try reordered(toFilters, inward: false), toOffset, toMask,
      hasBias ? try biasGradient(upstream) : nil
    )
  }

  private func addFilterGradient(
    _ rows: Range<Int>, _ samples: Samples, _ source: Tensor, _ upstream: Tensor,
    _ columns: Tensor, _ toFilters: Tensor
  ) {
    Kernels.deformableColumns(source.floats, samples, shape, count: rows.count, columns.floats)
    for group in 0..<shape.groups {
      gemm(
        perGroup, depth, rows.count,
        upstream.floats + (group * shape.rows + rows.lowerBound) * perGroup, true,
        columns.floats + group * rows.count * depth, false,
        toFilters.floats + group * perGroup * depth, accumulate: rows.lowerBound > 0)
    }
  }

  private func eachTile(
    _ offset: Tensor, _ mask: Tensor?, _ body: (Range<Int>, Samples) throws -> Void
  ) throws {
    let size = tileRows * shape.samplesPerRow * MemoryLayout<DeformableSample>.stride
    let storage = try Storage(byteCount: size)
    let samples = storage.pointer.bindMemory(
      to: DeformableSample.self, capacity: tileRows * shape.samplesPerRow)
    var first = 0
    while first < shape.rows {
      let rows = first..<min(first + tileRows, shape.rows)
      Kernels.deformableSamples(
        offset: offset.floats, mask: mask?.floats, shape, rows: rows, samples)
      try body(rows, samples)
      first = rows.upperBound
    }
  }

  private func inputRows(_ input: Tensor) throws -> Tensor {
    let rows = try Tensor(uninitialized: [
      shape.images * shape.height * shape.width, shape.channels,
    ])
    Kernels.channelRows(input.floats, map, rows.floats)
    return rows
  }

  /// Weights with the channels last (K, kh, kw, C/groups), as the columns have them; or the way back.
  private func reordered(_ weight: Tensor, inward: Bool) throws -> Tensor {
    let (taps, channels) = (shape.taps, shape.channels / shape.groups)
    let target =
      inward
      ? [filters, shape.kernelHeight, shape.kernelWidth, channels]
      : [filters, channels, shape.kernelHeight, shape.kernelWidth]
    let result = try Tensor(uninitialized: target)
    let (rows, columns) = inward ? (channels, taps) : (taps, channels)
    for filter in 0..<filters {
      let (from, to) = (weight.floats + filter * depth, result.floats + filter * depth)
      for row in 0..<rows {
        for column in 0..<columns { to[column * rows + row] = from[row * columns + column] }
      }
    }
    return result
  }

  private func biasGradient(_ upstream: Tensor) throws -> Tensor {
    let result = try Tensor(uninitialized: [filters])
    for filter in 0..<filters {
      let first = upstream.floats + filter / perGroup * shape.rows * perGroup + filter % perGroup
      var sum = 0.0
      for row in 0..<shape.rows { sum += Double(first[row * perGroup]) }
      result.floats[filter] = Float(sum)
    }
    return result
  }
}
