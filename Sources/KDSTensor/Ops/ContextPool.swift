import KDSKernels

extension Tensor {
  /// The context of a global-context block (Cao et al., GCNet, ICCVW 2019): with
  /// a = softmax over the pixels of (sum over c of weight_c F_c + bias), sum over p of a_p F_p.
  ///
  /// The bias cancels in the softmax: its gradient is 0.
  /// - Shapes: self (N, C, H, W) with H W > 0, blocked or plain; weight (C) or (1, C, 1, 1). The result
  ///   is (N, C). Gradients go to the map and the weight.
  public func contextPool(weight: Tensor) throws -> Tensor {
    let name = "context_pool"
    try requireFloats(name, [self, weight])
    guard rank == 4, shape[1] > 0, shape[2] > 0, shape[3] > 0 else {
      throw KDSError.shape("\(name): input must be (N, C, H, W) with pixels, got \(shape)")
    }
    guard weight.shape == [shape[1]] || weight.shape == [1, shape[1], 1, 1] else {
      throw KDSError.shape(
        "\(name): weight \(weight.shape) must be (\(shape[1])) or (1, \(shape[1]), 1, 1) for input "
          + "\(shape)")
    }
    let (source, factors) = (try mapForKernels(self), try weight.plain())
    let map = ChannelGeometry(source)
    let attention = try Tensor(uninitialized: [map.images, map.area])
    Kernels.channelProducts(
      source.floats, weights: factors.floats, perImage: false, map, attention.floats)
    Kernels.softmax(attention.floats, attention.floats, rows: map.images, columns: map.area)
    let result = try Tensor(uninitialized: [map.images, map.channels])
    Kernels.pixelProducts(source.floats, weights: attention.floats, map, result.floats)
    let (wantsMap, wantsWeight) = (source.isTracked, factors.isTracked)
    let (values, own) = (source.detachedView(), factors.detachedView())
    return Tape.record(result, name, [source, factors]) { gradient in
      // By the attention: sum over c of g_c F_c; by its logits: a (that - its mean under a).
      let incoming = try gradient.plain()
      let slopes = try attention.uninitializedLike()
      Kernels.channelProducts(
        values.floats, weights: incoming.floats, perImage: true, map, slopes.floats)
      Kernels.softmaxBackward(
        output: attention.floats, gradOutput: slopes.floats, gradInput: slopes.floats,
        rows: map.images, columns: map.area)
      var toMap: Tensor?
      if wantsMap {
        let out = try values.uninitializedLike()
        Kernels.sumOfProducts(
          pixels: attention.floats, channels: incoming.floats, pixels: slopes.floats,
          shared: own.floats, map, out.floats)
        toMap = out
      }
      if !wantsWeight { return [toMap, nil] }
      let perImage = try Tensor(uninitialized: [map.images, map.channels])
      Kernels.pixelProducts(values.floats, weights: slopes.floats, map, perImage.floats)
      let toWeight = try perImage.summed(axes: [0]).reshaped(own.shape)
      return [toMap, toWeight]
    }
  }
}
