import KDSKernels

/// The bfloat16 forms of what stands between convolutions. Each is reached through the operation's
/// public name when a tensor is in the `half` layout.
extension Tensor {
  /// max(x, 0)
  func reluHalf() throws -> Tensor {
    let result = try uninitializedLike()
    Kernels.reluHalf(halves, result.halves, count)
    let output = result.detachedView()
    return Tape.record(result, "relu", [self]) { [try $0.passedHalf(where: output)] }
  }

  /// a + b of one shape, then ReLU if asked for.
  func addingHalf(_ other: Tensor, relu: Bool) throws -> Tensor {
    let (a, b) = (try inLayout(.half), try other.inLayout(.half))
    let result = try a.uninitializedLike()
    Kernels.addHalf(a.halves, b.halves, result.halves, result.count, relu: relu)
    let output = relu ? result.detachedView() : nil
    return Tape.record(result, relu ? "add_relu" : "add", [a, b]) { gradient in
      let toBoth = try output.map { try gradient.passedHalf(where: $0) } ?? gradient
      return [toBoth, toBoth]
    }
  }

  /// This gradient where a ReLU's output is above 0, else 0.
  func passedHalf(where output: Tensor) throws -> Tensor {
    let result = try uninitializedLike()
    Kernels.reluBackwardHalf(output: output.halves, gradient: halves, result.halves, count)
    return result
  }

  /// x · scale[c] + shift[c], then ReLU if asked for; gradients to scale and shift come in float32.
  func channelAffineHalf(scale: Tensor, shift: Tensor, relu: Bool) throws -> Tensor {
    let output = try uninitializedLike()
    let (pixels, channels) = (count / max(1, shape[1]), shape[1])
    Kernels.channelAffineHalf(
      halves, scale: scale.floats, shift: shift.floats, output.halves, pixels: pixels,
      channels: channels, relu: relu)
    guard Tape.tracks([self, scale, shift]) else { return output }
    let view = output.detachedView()
    let wantsVectors = scale.isTracked || shift.isTracked
    return Tape.record(output, "channel_affine", [self, scale, shift]) { incoming in
      let gradient = relu ? try incoming.passedHalf(where: view) : incoming
      let toSource = try gradient.uninitializedLike()
      let zero = try Tensor.zeros(shift.shape)
      Kernels.channelAffineHalf(
        gradient.halves, scale: scale.floats, shift: zero.floats, toSource.halves, pixels: pixels,
        channels: channels, relu: false)
      guard wantsVectors else { return [toSource, nil, nil] }
      let (wide, source) = (try gradient.widened(), try self.widened())
      let toScale = try Tensor(uninitialized: scale.shape)
      let toShift = try Tensor(uninitialized: shift.shape)
      Kernels.channelSums(
        wide.floats, times: source.floats, plain: toShift.floats, product: toScale.floats,
        ChannelGeometry(wide))
      return [toSource, toScale, toShift]
    }
  }

  /// Nearest-neighbour resizing.
  func resizedNearestHalf(_ size: Size2) throws -> Tensor {
    let map = MapGeometry(self)
    let result = try Tensor(
      uninitialized: [shape[0], shape[1], size.height, size.width], layout: .half)
    Kernels.nearestForwardHalf(
      halves, map: map, outHeight: size.height, outWidth: size.width, output: result.halves)
    let sourceShape = shape
    return Tape.record(result, "interpolate", [self]) { gradient in
      let back = try Tensor(uninitialized: sourceShape, layout: .half)
      Kernels.nearestBackwardHalf(
        gradOutput: gradient.halves, map: map, outHeight: size.height, outWidth: size.width,
        gradInput: back.halves)
      return [back]
    }
  }
}
