import COneDNN
import KDSKernels

private struct NormKey: Hashable {
  var shape: [Int]
  var block: Int
  var direction: ConvolutionKey.Direction
  var relu: Bool
  var epsilon: Float
  var half: Bool

  func make() -> OpaquePointer? {
    var spec = kds_dnn_norm_spec()
    spec.batch = Int64(shape[0])
    spec.channels = Int64(shape[1])
    spec.height = Int64(shape[2])
    spec.width = Int64(shape[3])
    spec.block = Int32(block)
    spec.direction = direction.rawValue
    spec.fuse_relu = relu ? 1 : 0
    spec.epsilon = epsilon
    spec.half = half ? 1 : 0
    return kds_dnn_norm(&spec)
  }
}

private let normCache = PrimitiveCache<NormKey>()

private func normPrimitive(
  _ key: NormKey, _ direction: ConvolutionKey.Direction
) throws -> Primitive {
  var key = key
  key.direction = direction
  guard let found = normCache.find(key, make: key.make) else {
    throw KDSError.runtime("batch_norm: oneDNN has no kernel for input \(key.shape)")
  }
  return found
}

/// What training-mode batch normalization gives: the result and the statistics of the batch.
public struct BatchNormResult {
  public let output: Tensor
  /// Mean per channel, (C).
  public let mean: Tensor
  /// Biased variance per channel, (C).
  public let variance: Tensor
}

extension Tensor {
  /// Batch normalization with the statistics of this batch:
  /// y = (x − mean) / sqrt(variance + ε) · scale + shift, then ReLU if asked for.
  ///
  /// - Shapes: self (N, C, H, W); scale, shift (C). The result is blocked.
  public func batchNormTraining(
    scale: Tensor, shift: Tensor, epsilon: Float, activation: Activation = .none
  ) throws -> BatchNormResult {
    try checkChannelVectors("batch_norm", scale, shift)
    let layout = self.layout == .half ? Layout.half : .preferred
    let source = try inLayout(layout)
    let key = NormKey(
      shape: shape, block: layout.block, direction: .training, relu: activation == .relu,
      epsilon: epsilon, half: layout == .half)
    let forward = try normPrimitive(key, .training)
    let output = try Tensor(uninitialized: shape, layout: layout)
    let mean = try Tensor(uninitialized: [shape[1]])
    let variance = try Tensor(uninitialized: [shape[1]])
    var arguments: [(Int32, UnsafeMutableRawPointer)] = [
      (DNNL_ARG_SRC_0, source.storage.pointer), (DNNL_ARG_DST_0, output.storage.pointer),
      (DNNL_ARG_MEAN, mean.storage.pointer), (DNNL_ARG_VARIANCE, variance.storage.pointer),
      (DNNL_ARG_SCALE, scale.storage.pointer), (DNNL_ARG_SHIFT, shift.storage.pointer),
    ]
    var workspace: Storage?
    if forward.bytes(of: DNNL_ARG_WORKSPACE) > 0 {
      workspace = try Storage(byteCount: forward.bytes(of: DNNL_ARG_WORKSPACE))
      arguments.append((DNNL_ARG_WORKSPACE, workspace!.pointer))
    }
    try forward.run("batch_norm", arguments)
    Tape.record(output, "batch_norm", [source, scale, shift]) { gradient in
      let backward = try normPrimitive(key, .data)
      let toSource = try Tensor(uninitialized: source.shape, layout: layout)
      let toScale = try Tensor(uninitialized: scale.shape)
      let toShift = try Tensor(uninitialized: shift.shape)
      var arguments: [(Int32, UnsafeMutableRawPointer)] = [
        (DNNL_ARG_SRC_0, source.storage.pointer), (DNNL_ARG_MEAN, mean.storage.pointer),
        (DNNL_ARG_VARIANCE, variance.storage.pointer), (DNNL_ARG_SCALE, scale.storage.pointer),
        // Not read, but oneDNN 2 counts it among the inputs.
        (DNNL_ARG_SHIFT, shift.storage.pointer),
        (DNNL_ARG_DIFF_DST_0, gradient.storage.pointer),
        (DNNL_ARG_DIFF_SRC_0, toSource.storage.pointer),
        (DNNL_ARG_DIFF_SCALE, toScale.storage.pointer),
        (DNNL_ARG_DIFF_SHIFT, toShift.storage.pointer),
      ]
      if let workspace { arguments.append((DNNL_ARG_WORKSPACE, workspace.pointer)) }
      try backward.run("batch_norm backward", arguments)
      return [toSource, toScale, toShift]
    }
    return BatchNormResult(output: output, mean: mean, variance: variance)
  }

  /// y = x · scale[c] + shift[c], then ReLU if asked for: frozen batch normalization.
  ///
  /// - Shapes: self (N, C, H, W) in any layout, kept; scale and shift (C).
  public func channelAffine(
    scale: Tensor, shift: Tensor, activation: Activation = .none
  ) throws -> Tensor {
    try checkChannelVectors("channel_affine", scale, shift)
    let relu = activation == .relu
    if layout == .half {
      return try channelAffineHalf(scale: scale, shift: shift, relu: relu)
    }
    let output = try Tensor(uninitialized: shape, layout: layout)
    let geometry = ChannelGeometry(self)
    Kernels.channelAffine(
      floats, scale: scale.floats, shift: shift.floats, output.floats, geometry, relu: relu)
    guard Tape.tracks([self, scale, shift]) else { return output }
    let view = output.detachedView()
    let wantsVectors = scale.isTracked || shift.isTracked
    return Tape.record(output, "channel_affine", [self, scale, shift]) { incoming in
      var gradient = incoming
      if relu {
        gradient = try Tensor(uninitialized: incoming.shape, layout: incoming.layout)
        Kernels.reluBackward(
          output: view.floats, gradient: incoming.floats, gradient.floats, gradient.storedCount)
      }
      let toSource = try Tensor(uninitialized: incoming.shape, layout: incoming.layout)
      let zero = try Tensor.zeros(shift.shape)
      Kernels.channelAffine(
        gradient.floats, scale: scale.floats, shift: zero.floats, toSource.floats, geometry,
        relu: false)
      guard wantsVectors else { return [toSource, nil, nil] }
      let toScale = try Tensor(uninitialized: scale.shape)
      let toShift = try Tensor(uninitialized: shift.shape)
      Kernels.channelSums(
        gradient.floats, times: self.floats, plain: toShift.floats, product: toScale.floats,
        geometry)
      return [toSource, toScale, toShift]
    }
  }

  private func checkChannelVectors(_ name: String, _ scale: Tensor, _ shift: Tensor) throws {
    guard rank == 4, dtype == .float32, count > 0 else {
      throw KDSError.shape("\(name): input must be a non-empty (N, C, H, W), got \(shape)")
    }
    guard scale.shape == [shape[1]], shift.shape == [shape[1]] else {
      throw KDSError.shape(
        "\(name): scale \(scale.shape) and shift \(shift.shape) must be (\(shape[1])) for input \(shape)"
      )
    }
  }
}

extension ChannelGeometry {
  init(_ tensor: Tensor) {
    self.init(
      images: tensor.shape[0], channels: tensor.shape[1], area: tensor.shape[2] * tensor.shape[3],
      block: tensor.layout.block)
  }
}
