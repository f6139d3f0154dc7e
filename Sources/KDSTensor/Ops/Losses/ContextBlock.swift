import KDSKernels

/// A global-context block (Cao et al., GCNet, ICCVW 2019), as FGD has one on either side:
/// R(F) = F + W_2 relu(norm(W_1 sum over p of softmax_p(w · F)_p F_p + b_1)) + b_2.
public struct ContextBlock {
  /// mask (C) or (1, C, 1, 1); reduce (K, C), (K); norm (K), (K); expand (C, K), (C).
  public let tensors: [Tensor]

  public static let count = 7

  public init(_ tensors: [Tensor]) { self.tensors = tensors }

  func check(_ name: String, channels: Int) throws {
    try requireFloats(name, tensors)
    let shapes = tensors.map(\.shape)
    let width = tensors.count > 1 ? shapes[1].first ?? 0 : 0
    let wanted = [
      [channels], [width, channels], [width], [width], [width], [channels, width], [channels],
    ]
    let isMask = shapes.first == [1, channels, 1, 1] || shapes.first == [channels]
    guard isMask, width > 0, shapes.dropFirst() == wanted.dropFirst() else {
      throw KDSError.shape(
        "\(name): a context block for \(channels) channels has the shapes \(wanted), got \(shapes)")
    }
  }
}

/// One side of FGD: attention of a map, and its context with what a block makes of it.
struct FocalSide {
  /// A^S, (N, H · W), A^C, (N, C), and sums over the pixels, (N, C).
  let pixels, channels, totals: Tensor
  /// Softmax of the block's logits, (N, H · W), and the weights of these, (C).
  let attention, logitWeights: Tensor
  /// What the block adds, (N, C), on a tape that starts at `context` and at copies of the tensors.
  private(set) var addition: Tensor?
  private var leaves: [Tensor] = []
  private var context: Tensor?

  init(
    _ tensor: Tensor, _ map: ChannelGeometry, _ temperature: Float, _ block: ContextBlock?
  ) throws {
    let (plane, vector) = ([map.images, map.area], [map.images, map.channels])
    (pixels, attention) = (try Tensor(uninitialized: plane), try Tensor(uninitialized: plane))
    (channels, totals) = (try Tensor(uninitialized: vector), try Tensor(uninitialized: vector))
    logitWeights = try block?.tensors[0].detached().plain() ?? Tensor.zeros([map.channels])
    Kernels.focalSums(
      tensor.floats, weights: logitWeights.floats, map,
      FocalSums(
        pixels: pixels.floats, channels: channels.floats, logits: attention.floats,
        totals: totals.floats))
    Kernels.focalAttention(
      pixels.floats, pixels.floats, rows: map.images, columns: map.area, temperature: temperature)
    Kernels.focalAttention(
      channels.floats, channels.floats, rows: map.images, columns: map.channels,
      temperature: temperature)
    guard let block else {
      attention.floats.update(repeating: 0, count: attention.count)
      return
    }
    Kernels.softmax(attention.floats, attention.floats, rows: map.images, columns: map.area)
    let pooled = try Tensor(uninitialized: vector)
    Kernels.pixelProducts(tensor.floats, weights: attention.floats, map, pooled.floats)
    pooled.requiresGrad = true
    context = pooled
    leaves = block.tensors.dropFirst().map { tensor in
      let leaf = Tensor(storage: tensor.storage, shape: tensor.shape)
      leaf.requiresGrad = true
      return leaf
    }
    addition = try pooled.linear(leaves[0], bias: leaves[1])
      .layerNorm(weight: leaves[2], bias: leaves[3]).relu()
      .linear(leaves[4], bias: leaves[5])
  }

  /// Once the tape of `addition` has run back: gradients by the context, (N, C), and by the logits,
  /// (N, H · W); zeros without a block.
  func logitSlopes(
    _ tensor: Tensor, _ map: ChannelGeometry
  ) throws -> (context: Tensor, logits: Tensor) {
    guard let slopes = context?.gradient else {
      return (try Tensor.zeros(channels.shape), try Tensor.zeros(pixels.shape))
    }
    let incoming = try slopes.plain()
    let logits = try Tensor(uninitialized: pixels.shape)
    // By the attention: sum over c of g_c F_c; by its logits: a (that - its mean under a).
    Kernels.channelProducts(
      tensor.floats, weights: incoming.floats, perImage: true, map, logits.floats)
    Kernels.softmaxBackward(
      output: attention.floats, gradOutput: logits.floats, gradInput: logits.floats,
      rows: map.images, columns: map.area)
    return (incoming, logits)
  }

  /// Gradients of the block's tensors; `products` is that of the logit weights per image.
  func gradients(_ products: Tensor) throws -> [Tensor] {
    if context == nil { return [] }
    let others = try leaves.map { leaf in try leaf.gradient ?? Tensor.zeros(leaf.shape) }
    return [try products.summed(axes: [0])] + others
  }
}
