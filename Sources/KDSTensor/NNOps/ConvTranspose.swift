import KDSKernels

extension Tensor {
  /// Transposed convolution, as `torch.nn.functional.conv_transpose2d`: the convolution's backward pass
  /// used forward.
  ///
  /// - Shapes: self (N, C, H, W); weight (C, K/groups, kh, kw); bias (K);
  ///   result (N, K, (H−1)·stride − pads + dilation·(kh−1) + outputPadding + 1, …).
  public func convTranspose2d(
    _ weight: Tensor, bias: Tensor? = nil, outputPadding: Size2 = Size2(0),
    _ options: ConvolutionOptions = ConvolutionOptions()
  ) throws -> Tensor {
    guard rank == 4, weight.rank == 4, shape[1] == weight.shape[0] else {
      throw KDSError.shape(
        "conv_transpose2d: input \(shape) must be (N, C, H, W) and weight \(weight.shape) (C, K/groups, kh, kw)"
      )
    }
    guard options.groups > 0, options.groups <= shape[1] else {
      throw KDSError.shape("conv_transpose2d: \(options.groups) groups for input \(shape)")
    }
    let (s, p, d) = (options.stride, options.padding, options.dilation)
    let height =
      (shape[2] - 1) * s.height - p.top - p.bottom + d.height * (weight.shape[2] - 1)
      + outputPadding.height + 1
    let width =
      (shape[3] - 1) * s.width - p.left - p.right + d.width * (weight.shape[3] - 1)
      + outputPadding.width + 1
    guard height > 0, width > 0 else {
      throw KDSError.shape("conv_transpose2d: input \(shape) is too small for padding \(p)")
    }
    let target = [shape[0], weight.shape[1] * options.groups, height, width]
    let geometry = try ConvolutionGeometry(
      target, weight.shape, nil, options, name: "conv_transpose2d")
    guard geometry.resultShape == shape else {
      throw KDSError.shape(
        "conv_transpose2d: output padding \(outputPadding) must be smaller than stride \(s)")
    }
    let source = try inLayout(geometry.resultLayout)
    let result = try geometry.backwardData(source, .own(weight))
    let (wantsSource, wantsWeight) = (source.isTracked, weight.isTracked)
    Tape.record(result, "conv_transpose2d", [source, weight]) { gradient in
      let incoming = try gradient.inLayout(geometry.sourceLayout)
      let toSource =
        wantsSource
        ? try geometry.forward(incoming, .own(weight), nil, relu: false, training: true) : nil
      let toWeight =
        wantsWeight ? try geometry.backwardWeights(incoming, source, bias: false).0 : nil
      return [toSource, toWeight]
    }
    guard let bias else { return result }
    return try result.channelAffine(scale: Tensor(filled: 1, shape: bias.shape), shift: bias)
  }
}
