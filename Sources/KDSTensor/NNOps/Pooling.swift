import COneDNN

/// Options of the pooling operations.
public struct PoolingOptions: Hashable {
  public enum Kind: Int32 { case max = 0, averageOfValid = 1, average = 2 }
  public var kind: Kind
  public var kernel: Size2
  public var stride: Size2
  public var padding: Padding
  /// Rounds the output size up, as Caffe does (PyTorch's `ceil_mode`).
  public var roundUp: Bool

  public init(
    kind: Kind = .max, kernel: Size2, stride: Size2? = nil, padding: Padding = .zero,
    roundUp: Bool = false
  ) {
    self.kind = kind
    self.kernel = kernel
    self.stride = stride ?? kernel
    self.padding = padding
    self.roundUp = roundUp
  }
}

private struct PoolKey: Hashable {
  var shape: [Int]
  var outHeight, outWidth: Int
  var options: PoolingOptions
  var block: Int
  var direction: ConvolutionKey.Direction
  var half: Bool

  func make() -> OpaquePointer? {
    var spec = kds_dnn_pool_spec()
    spec.batch = Int64(shape[0])
    spec.channels = Int64(shape[1])
    spec.in_height = Int64(shape[2])
    spec.in_width = Int64(shape[3])
    spec.out_height = Int64(outHeight)
    spec.out_width = Int64(outWidth)
    spec.kernel_h = Int64(options.kernel.height)
    spec.kernel_w = Int64(options.kernel.width)
    spec.stride_h = Int64(options.stride.height)
    spec.stride_w = Int64(options.stride.width)
    spec.pad_top = Int64(options.padding.top)
    spec.pad_left = Int64(options.padding.left)
    // What rounding up reaches beyond the given padding counts as padding.
    spec.pad_bottom = Int64(
      (outHeight - 1) * options.stride.height + options.kernel.height - shape[2]
        - options.padding.top)
    spec.pad_right = Int64(
      (outWidth - 1) * options.stride.width + options.kernel.width - shape[3] - options.padding.left
    )
    spec.block = Int32(block)
    spec.kind = options.kind.rawValue
    spec.half = half ? 1 : 0
    spec.direction = direction.rawValue
    return kds_dnn_pool(&spec)
  }
}

private let poolCache = PrimitiveCache<PoolKey>()

extension Tensor {
  /// Max or average pooling, as `max_pool2d` / `avg_pool2d` of PyTorch.
  ///
  /// - Shapes: (N, C, H, W) to (N, C, H', W'), blocked.
  public func pool2d(_ options: PoolingOptions) throws -> Tensor {
    let key = try poolKey(options)
    let layout = key.half ? Layout.half : .preferred
    let source = try inLayout(layout)
    let tracked = Tape.tracks([source])
    let result = try Tensor(
      uninitialized: [shape[0], shape[1], key.outHeight, key.outWidth], layout: layout)
    let forward = try poolPrimitive(key, tracked ? .training : .inference)
    var arguments: [(Int32, UnsafeMutableRawPointer)] = [
      (DNNL_ARG_SRC_0, source.storage.pointer), (DNNL_ARG_DST_0, result.storage.pointer),
    ]
    var workspace: Storage?
    let workspaceBytes = tracked ? forward.bytes(of: DNNL_ARG_WORKSPACE) : 0
    if workspaceBytes > 0 {
      workspace = try Storage(byteCount: workspaceBytes)
      arguments.append((DNNL_ARG_WORKSPACE, workspace!.pointer))
    }
    try forward.run("pool2d", arguments)
    guard tracked else { return result }
    let sourceShape = shape
    return Tape.record(result, "pool2d", [source]) { gradient in
      let backward = try poolPrimitive(key, .data)
      let toSource = try Tensor(uninitialized: sourceShape, layout: layout)
      var arguments: [(Int32, UnsafeMutableRawPointer)] = [
        (DNNL_ARG_DIFF_DST_0, gradient.storage.pointer),
        (DNNL_ARG_DIFF_SRC_0, toSource.storage.pointer),
      ]
      if let workspace { arguments.append((DNNL_ARG_WORKSPACE, workspace.pointer)) }
      try backward.run("pool2d backward", arguments)
      return [toSource]
    }
  }

  private func poolKey(_ options: PoolingOptions) throws -> PoolKey {
    guard rank == 4, dtype == .float32 else {
      throw KDSError.shape("pool2d: input must be (N, C, H, W), got \(shape)")
    }
    let (k, s, p) = (options.kernel, options.stride, options.padding)
    guard k.height > 0, k.width > 0, s.height > 0, s.width > 0,
      min(p.top, p.left, p.bottom, p.right) >= 0,
      max(p.top, p.bottom) < k.height, max(p.left, p.right) < k.width
    else {
      throw KDSError.argument(
        "pool2d: kernel \(k) and stride \(s) must be positive and padding \(p) smaller than the kernel"
      )
    }
    let height = windowCount(
      shape[2], kernel: k.height, stride: s.height, before: p.top, after: p.bottom,
      roundUp: options.roundUp)
    let width = windowCount(
      shape[3], kernel: k.width, stride: s.width, before: p.left, after: p.right,
      roundUp: options.roundUp)
    guard height > 0, width > 0, shape[0] > 0, shape[1] > 0 else {
      throw KDSError.shape("pool2d: input \(shape) is too small for kernel \(k) with padding \(p)")
    }
    return PoolKey(
      shape: shape, outHeight: height, outWidth: width, options: options,
      block: Layout.preferredBlock, direction: .inference, half: layout == .half)
  }
}

private func poolPrimitive(
  _ key: PoolKey, _ direction: ConvolutionKey.Direction
) throws -> Primitive {
  var key = key
  key.direction = direction
  guard let found = poolCache.find(key, make: key.make) else {
    throw KDSError.runtime("pool2d: oneDNN has no kernel for input \(key.shape) and \(key.options)")
  }
  return found
}
