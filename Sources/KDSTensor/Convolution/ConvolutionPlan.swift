import COneDNN
import KDSKernels

/// What one run of a convolution looks like to oneDNN.
struct ConvolutionKey: Hashable {
  enum Direction: Int32 { case training, inference, data, weights }
  var batch, inChannels, inHeight, inWidth: Int
  var outChannels, outHeight, outWidth: Int
  var groups: Int
  var kernel, stride, dilation: Size2
  var padding: Padding
  var sourceBlock, destinationBlock: Int
  var direction: Direction
  var winograd: Bool
  var bias: Bool
  var relu: Bool
  /// bfloat16 maps and weights.
  var half = false

  func make() -> OpaquePointer? {
    var spec = kds_dnn_conv_spec()
    spec.batch = Int64(batch)
    spec.in_channels = Int64(inChannels)
    spec.in_height = Int64(inHeight)
    spec.in_width = Int64(inWidth)
    spec.out_channels = Int64(outChannels)
    spec.out_height = Int64(outHeight)
    spec.out_width = Int64(outWidth)
    spec.groups = Int64(groups)
    spec.kernel_h = Int64(kernel.height)
    spec.kernel_w = Int64(kernel.width)
    spec.stride_h = Int64(stride.height)
    spec.stride_w = Int64(stride.width)
    spec.dilation_h = Int64(dilation.height)
    spec.dilation_w = Int64(dilation.width)
    spec.pad_top = Int64(padding.top)
    spec.pad_left = Int64(padding.left)
    spec.pad_bottom = Int64(padding.bottom)
    spec.pad_right = Int64(padding.right)
    spec.source_block = Int32(sourceBlock)
    spec.destination_block = Int32(destinationBlock)
    spec.direction = direction.rawValue
    spec.winograd = winograd ? 1 : 0
    spec.with_bias = bias ? 1 : 0
    spec.fuse_relu = relu ? 1 : 0
    spec.half = half ? 1 : 0
    return kds_dnn_conv(&spec)
  }

  /// Multiply-adds of the direct method, times two.
  var flops: Double {
    2 * Double(batch * outChannels * outHeight * outWidth) * Double(inChannels / groups)
      * Double(kernel.height * kernel.width)
  }
}

/// Which algorithm runs each convolution.
///
/// `static` decides by shape alone, so that runs repeat bit for bit; `measured` times direct against
/// Winograd at first use and keeps the winner (save the choices with `measuredChoices`).
public enum ConvolutionPlan {
  /// `direct` and `winograd` force one algorithm wherever it exists; they serve tests and benchmarks.
  public enum Mode: Int32 { case `static` = 0, measured = 1, direct = 2, winograd = 3 }

  nonisolated(unsafe) public static var mode = Mode.static
  nonisolated(unsafe) private static var choices: [ConvolutionKey: Bool] = [:]
  private static let lock = Lock()
  private static let cache = PrimitiveCache<ConvolutionKey>()

  /// The primitive for `key`; its `winograd` field is set by the plan.
  static func primitive(_ key: ConvolutionKey) throws -> Primitive {
    var wanted = key
    wanted.winograd = winogradSuits(key)
    if wanted.winograd && mode == .measured { wanted.winograd = measuredChoice(wanted) }
    if let found = cache.find(wanted, make: wanted.make) { return found }
    if wanted.winograd {
      wanted.winograd = false
      if let found = cache.find(wanted, make: wanted.make) { return found }
    }
    throw KDSError.runtime(
      "conv2d: oneDNN has no kernel for input (\(key.batch), \(key.inChannels), \(key.inHeight), "
        + "\(key.inWidth)) and \(key.outChannels) filters \(key.kernel)")
  }

  /// Filters counted up to whole blocks where that makes Winograd possible, else as they are.
  ///
  /// - Note: the plan must not change between the passes of one layer; `mode` is set between steps.
  static func paddedFilters(_ key: ConvolutionKey) -> Int {
    var padded = key
    padded.outChannels = (key.outChannels + 15) / 16 * 16
    // A third of empty filters is more than Winograd saves on small layers.
    let worthwhile = 4 * key.outChannels >= 3 * padded.outChannels
    return worthwhile && winogradSuits(padded) ? padded.outChannels : key.outChannels
  }

  /// The rule by shape: 3×3, stride 1, dense, not grouped, enough channels to fill the tiles.
  private static func winogradSuits(_ key: ConvolutionKey) -> Bool {
    !key.half && key.kernel == Size2(3, 3) && key.stride == Size2(1, 1)
      && key.dilation == Size2(1, 1)
      && key.groups == 1 && key.sourceBlock == 16 && key.destinationBlock == 16
      && key.inChannels % 16 == 0 && key.outChannels % 16 == 0
      && staticRule(key)
  }

  private static func staticRule(_ key: ConvolutionKey) -> Bool {
    switch mode {
    case .direct: return false
    case .measured, .winograd: return true
    case .static:
      // Tiles of 4×4 waste too much on small maps, and few tiles do not pay for the transforms. Without
      // gradients the weights are transformed once, so less is enough (benchmarks/winograd.py).
      let (side, pixels) = key.direction == .inference ? (8, 256) : (12, 1000)
      return min(key.outHeight, key.outWidth) >= side
        && key.batch * key.outHeight * key.outWidth >= pixels
    }
  }

  private static func measuredChoice(_ key: ConvolutionKey) -> Bool {
    lock.withLock {
      if let known = choices[key] { return known }
      var direct = key
      direct.winograd = false
      var best = false
      if let fast = cache.find(key, make: key.make),
        let plain = cache.find(direct, make: direct.make)
      {
        best = time(fast, key) < time(plain, direct)
      }
      choices[key] = best
      return best
    }
  }

  /// Best of three runs, in seconds, on memory filled with zeros.
  private static func time(_ primitive: Primitive, _ key: ConvolutionKey) -> Double {
    let ids: [Int32] = [
      DNNL_ARG_SRC_0, DNNL_ARG_DST_0, DNNL_ARG_WEIGHTS_0, DNNL_ARG_BIAS, DNNL_ARG_DIFF_SRC_0,
      DNNL_ARG_DIFF_DST_0, DNNL_ARG_DIFF_WEIGHTS_0, DNNL_ARG_DIFF_BIAS,
    ]
    var keep: [Storage] = []
    var arguments: [(Int32, UnsafeMutableRawPointer)] = []
    for id in ids where primitive.bytes(of: id) > 0 {
      guard let storage = try? Storage(byteCount: primitive.bytes(of: id)) else { return .infinity }
      storage.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: storage.byteCount)
      keep.append(storage)
      arguments.append((id, storage.pointer))
    }
    var best = Double.infinity
    for _ in 0..<3 {
      let start = monotonicSeconds()
      guard (try? primitive.run("conv2d", arguments)) != nil else { return .infinity }
      best = min(best, monotonicSeconds() - start)
    }
    return best
  }
}
