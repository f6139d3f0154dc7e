import COneDNN
import KDSKernels

/// What stands after a convolution or a normalisation and is computed together with it.
public enum Activation: Hashable { case none, relu }

/// Options of `conv2d`; defaults are PyTorch's.
public struct ConvolutionOptions: Hashable {
  public var stride = Size2(1)
  public var padding = Padding.zero
  public var dilation = Size2(1)
  public var groups = 1
  public var activation = Activation.none

  public init(
    stride: Size2 = Size2(1), padding: Padding = .zero, dilation: Size2 = Size2(1),
    groups: Int = 1, activation: Activation = .none
  ) {
    self.stride = stride
    self.padding = padding
    self.dilation = dilation
    self.groups = groups
    self.activation = activation
  }
}

extension Tensor {
  /// 2-D convolution (cross-correlation), as `torch.nn.functional.conv2d`.
  ///
  /// - Shapes: self (N, C, H, W); weight (K, C/groups, kh, kw), plain; bias (K); result (N, K, H', W').
  /// - Layout: blocked wherever oneDNN has a fast kernel for it; the input may be in any layout.
  /// - Throws: `KDSError.shape` for sizes that do not fit.
  public func conv2d(
    _ weight: Tensor, bias: Tensor? = nil, _ options: ConvolutionOptions = ConvolutionOptions()
  ) throws -> Tensor {
    try conv2d(.own(weight.plain()), bias: bias, options)
  }

  func conv2d(
    _ filters: Filters, bias: Tensor?, _ options: ConvolutionOptions
  ) throws -> Tensor {
    let weight = filters.weight
    let geometry = try ConvolutionGeometry(
      self.shape, weight.shape, bias?.shape, options, half: Precision.isHalf)
    let source = try inLayout(geometry.sourceLayout)
    let tracked = Tape.tracks([source, weight, bias])
    let result = try geometry.forward(
      source, filters, bias, relu: options.activation == .relu, training: tracked)
    guard tracked else { return result }
    let (wantsSource, wantsWeight) = (source.isTracked, weight.isTracked)
    let wantsBias = bias?.isTracked ?? false
    let relu = options.activation == .relu
    // The closure must not hold the result itself: node -> closure -> result -> node would never be freed.
    let output = relu ? result.detachedView() : nil
    return Tape.record(result, "conv2d", [source, weight] + (bias.map { [$0] } ?? [])) { incoming in
      var gradient = incoming
      if let output, output.layout == .half {
        gradient = try incoming.passedHalf(where: output)
      } else if let output {
        gradient = try Tensor(uninitialized: incoming.shape, layout: incoming.layout)
        Kernels.reluBackward(
          output: output.floats, gradient: incoming.floats, gradient.floats, gradient.storedCount)
      }
      let toSource = wantsSource ? try geometry.backwardData(gradient, filters) : nil
      var toWeight: Tensor?
      var toBias: Tensor?
      if wantsWeight || wantsBias {
        (toWeight, toBias) = try geometry.backwardWeights(source, gradient, bias: wantsBias)
      }
      return [toSource, wantsWeight ? toWeight : nil, toBias]
    }
  }

  /// The same storage without the tape, for closures that must not hold the output itself.
  func detachedView() -> Tensor {
    Tensor(storage: storage, shape: shape, dtype: dtype, layout: layout)
  }
}

/// Checked sizes of one convolution, and its three passes.
struct ConvolutionGeometry {
  let key: ConvolutionKey
  let sourceShape, weightShape, resultShape: [Int]
  let sourceLayout, resultLayout: Layout
  /// The weight's shape as oneDNN sees it, with the source's channel padding counted as channels.
  private let paddedWeightShape: [Int]

  init(
    _ input: [Int], _ weight: [Int], _ bias: [Int]?, _ options: ConvolutionOptions,
    name: String = "conv2d", half: Bool = false
  ) throws {
    guard input.count == 4, weight.count == 4 else {
      throw KDSError.shape(
        "\(name): input must be (N, C, H, W) and weight (K, C/groups, kh, kw), got \(input) and \(weight)"
      )
    }
    let groups = options.groups
    // No products here: `groups` may be any number that a caller wrote.
    guard groups > 0, weight[0] > 0, input[1] % groups == 0, weight[1] == input[1] / groups,
      weight[0] % groups == 0
    else {
      throw KDSError.shape(
        "\(name): input \(input) has \(input[1]) channels, weight \(weight) in \(groups) groups "
          + "does not fit them: it must be (K, C/groups, kh, kw)")
    }
    if let bias, bias != [weight[0]] {
      throw KDSError.shape(
        "\(name): bias \(bias) does not fit the \(weight[0]) filters of \(weight)")
    }
    let (s, d, p) = (options.stride, options.dilation, options.padding)
    guard s.height > 0, s.width > 0, d.height > 0, d.width > 0,
      min(p.top, p.left, p.bottom, p.right) >= 0
    else {
      throw KDSError.argument(
        "\(name): stride \(s), dilation \(d) must be positive, padding \(p) not negative")
    }
    let height = windowCount(
      input[2], kernel: weight[2], stride: s.height, before: p.top, after: p.bottom,
      dilation: d.height)
    let width = windowCount(
      input[3], kernel: weight[3], stride: s.width, before: p.left, after: p.right,
      dilation: d.width)
    guard height > 0, width > 0, input[0] > 0, input[1] > 0, weight[2] > 0, weight[3] > 0 else {
      throw KDSError.shape(
        "\(name): input \(input) is too small for kernel \(weight[2])x\(weight[3]) with padding \(p)"
      )
    }
    sourceShape = input
    weightShape = weight
    resultShape = [input[0], weight[0], height, width]
    let half = half && Self.suitsHalf(input[1], groups)
    (sourceLayout, resultLayout) =
      half ? (.half, .half) : Self.layouts(input[1], weight[0], groups)
    // oneDNN has only reference loops for a blocked source with fewer channels than a block; with the
    // (zero) padding counted as channels it takes its fast kernels on the same memory.
    let channels = groups == 1 ? max(input[1], sourceLayout.block) : input[1]
    var key = ConvolutionKey(
      batch: input[0], inChannels: channels, inHeight: input[2], inWidth: input[3],
      outChannels: weight[0], outHeight: height, outWidth: width, groups: groups,
      kernel: Size2(weight[2], weight[3]), stride: s, dilation: d, padding: p,
      sourceBlock: sourceLayout.block, destinationBlock: resultLayout.block,
      direction: .training, winograd: false, bias: bias != nil, relu: false, half: half)
    // Winograd wants whole blocks of filters too; the result has the room and must hold zeros there.
    key.outChannels = ConvolutionPlan.paddedFilters(key)
    self.key = key
    paddedWeightShape = [key.outChannels, channels / groups, weight[2], weight[3]]
  }

  /// Images (few channels) and groups, which oneDNN has no fast bfloat16 kernels for, stay in float32.
  private static func suitsHalf(_ channels: Int, _ groups: Int) -> Bool {
    channels >= 16 && groups == 1
  }

  /// Blocked on both sides, except: images (few channels) come in plain, and groups whose channels
  /// do not fill blocks run plain, where oneDNN falls back to GEMM instead of its reference loops.
  private static func layouts(_ channels: Int, _ filters: Int, _ groups: Int) -> (Layout, Layout) {
    let block = Layout.preferredBlock
    if groups == 1 { return (channels <= 3 ? .plain : .preferred, .preferred) }
    let depthwise = groups == channels && groups == filters
    let fills = channels / groups % block == 0 && filters / groups % block == 0
    return depthwise || fills ? (.preferred, .preferred) : (.plain, .plain)
  }

  func forward(
    _ source: Tensor, _ filters: Filters, _ bias: Tensor?, relu: Bool, training: Bool
  ) throws -> Tensor {
    var key = key
    key.direction = training ? .training : .inference
    key.relu = relu
    let primitive = try ConvolutionPlan.primitive(key)
    let packed = try pack(filters, for: primitive)
    let result = try Tensor(uninitialized: resultShape, layout: resultLayout)
    var arguments: [(Int32, UnsafeMutableRawPointer)] = [
      (DNNL_ARG_SRC_0, source.storage.pointer), (DNNL_ARG_WEIGHTS_0, packed.pointer),
      (DNNL_ARG_DST_0, result.storage.pointer),
    ]
    let padded = try bias.map { try withPadding(bias: $0) }
    if let padded { arguments.append((DNNL_ARG_BIAS, padded.storage.pointer)) }
    try primitive.run("conv2d", arguments)
    return result
  }

  /// Gradient of the source. `gradient` is in the result's layout.
  func backwardData(_ gradient: Tensor, _ filters: Filters) throws -> Tensor {
    var key = key
    key.direction = .data
    key.bias = false
    let primitive = try ConvolutionPlan.primitive(key)
    let packed = try pack(filters, for: primitive)
    let result = try Tensor(uninitialized: sourceShape, layout: sourceLayout)
    try primitive.run(
      "conv2d backward",
      [
        (DNNL_ARG_DIFF_DST_0, gradient.storage.pointer), (DNNL_ARG_WEIGHTS_0, packed.pointer),
        (DNNL_ARG_DIFF_SRC_0, result.storage.pointer),
      ])
    return result
  }

  /// Gradients of weight (plain) and bias.
  func backwardWeights(
    _ source: Tensor, _ gradient: Tensor, bias: Bool
  ) throws -> (Tensor, Tensor?) {
    var key = key
    key.direction = .weights
    key.bias = bias
    let primitive = try ConvolutionPlan.primitive(key)
    let plain = try Tensor(uninitialized: paddedWeightShape)
    let isPlain = withGroupedDims {
      kds_dnn_weights_are_plain(primitive.handle, DNNL_ARG_DIFF_WEIGHTS_0, $0)
    }
    let packed =
      isPlain != 0
      ? plain.storage : try Storage(byteCount: primitive.bytes(of: DNNL_ARG_DIFF_WEIGHTS_0))
    let biasGradient = bias ? try Tensor(uninitialized: [key.outChannels]) : nil
    var arguments: [(Int32, UnsafeMutableRawPointer)] = [
      (DNNL_ARG_SRC_0, source.storage.pointer), (DNNL_ARG_DIFF_DST_0, gradient.storage.pointer),
      (DNNL_ARG_DIFF_WEIGHTS_0, packed.pointer),
    ]
    if let biasGradient { arguments.append((DNNL_ARG_DIFF_BIAS, biasGradient.storage.pointer)) }
    try primitive.run("conv2d backward", arguments)
    if isPlain == 0 {
      try reorder(
        primitive, DNNL_ARG_DIFF_WEIGHTS_0, from: packed, to: plain.storage, outward: true)
    }
    return (
      try withoutPadding(plain), try biasGradient?.sliced(axis: 0, to: weightShape[0])
    )
  }

  private func pack(_ filters: Filters, for primitive: Primitive) throws -> Storage {
    let isPlain = withGroupedDims {
      kds_dnn_weights_are_plain(primitive.handle, DNNL_ARG_WEIGHTS_0, $0)
    }
    if isPlain != 0, case .own(let weight) = filters { return try withPadding(weight).storage }
    return try filters.copies.copy(for: primitive, version: filters.weight.version) {
      let source = try withPadding(filters.plain())
      if isPlain != 0 { return source.storage }
      let packed = try Storage(byteCount: primitive.bytes(of: DNNL_ARG_WEIGHTS_0))
      try reorder(primitive, DNNL_ARG_WEIGHTS_0, from: source.storage, to: packed, outward: false)
      return packed
    }
  }

  /// Weights (K, C, h, w) with zeros for the channels of the padding.
  private func withPadding(_ weight: Tensor) throws -> Tensor {
    if paddedWeightShape == weightShape { return weight }
    let result = try Tensor.zeros(paddedWeightShape)
    copyFilters(weight.floats, weightShape, result.floats, paddedWeightShape)
    return result
  }

  /// Zeros for the filters of the padding.
  private func withPadding(bias: Tensor) throws -> Tensor {
    if bias.count == key.outChannels { return bias }
    let result = try Tensor.zeros([key.outChannels])
    result.floats.update(from: bias.floats, count: bias.count)
    return result
  }

  /// The way back for gradients.
  private func withoutPadding(_ weight: Tensor) throws -> Tensor {
    if paddedWeightShape == weightShape { return weight }
    let result = try Tensor(uninitialized: weightShape)
    copyFilters(weight.floats, paddedWeightShape, result.floats, weightShape)
    return result
  }

  /// Copies the channels that both shapes have, filter by filter.
  private func copyFilters(
    _ from: UnsafePointer<Float>, _ fromShape: [Int], _ to: UnsafeMutablePointer<Float>,
    _ toShape: [Int]
  ) {
    let area = fromShape[2] * fromShape[3]
    let length = min(fromShape[1], toShape[1]) * area
    for filter in 0..<min(fromShape[0], toShape[0]) {
      (to + filter * toShape[1] * area).update(
        from: from + filter * fromShape[1] * area, count: length)
    }
  }

  private func reorder(
    _ primitive: Primitive, _ argument: Int32, from: Storage, to: Storage, outward: Bool
  ) throws {
    let key = ReorderKey(primitive: ObjectIdentifier(primitive), outward: outward)
    let found = Self.reorders.find(key) {
      withGroupedDims { kds_dnn_weights_reorder(primitive.handle, argument, $0, outward ? 1 : 0) }
    }
    guard let found else {
      throw KDSError.runtime("conv2d: oneDNN cannot reorder weights \(weightShape)")
    }
    try found.run("conv2d weights", [(DNNL_ARG_FROM, from.pointer), (DNNL_ARG_TO, to.pointer)])
  }

  private func withGroupedDims<Result>(_ body: (UnsafePointer<Int64>) -> Result) -> Result {
    let dims = [
      Int64(key.groups), Int64(paddedWeightShape[0] / key.groups), Int64(paddedWeightShape[1]),
      Int64(weightShape[2]), Int64(weightShape[3]),
    ]
    return dims.withUnsafeBufferPointer { body($0.baseAddress!) }
  }

  private struct ReorderKey: Hashable {
    let primitive: ObjectIdentifier
    let outward: Bool
  }
  private static let reorders = PrimitiveCache<ReorderKey>()
}

extension Tensor {
  func packedWeights() -> PackedWeights {
    if let packed { return packed }
    let made = PackedWeights()
    packed = made
    return made
  }
}
