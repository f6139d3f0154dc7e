import KDSKernels

extension Tensor {
  /// Attention inside shifted windows (Liu et al. 2021), padding, shift and mask included.
  ///
  /// - Shapes: self (N, H, W, 3C), for each token all heads' q, then k, then v; `table`
  ///   ((2·window − 1)², heads); `padding` (3C), what the tokens have that fill the last windows up (nil
  ///   for 0; torchvision has the bias of the projection there). Result (N, H, W, C). Gradients go to
  ///   all three.
  /// - Parameter shift: how far windows are moved up and left; a side of a single window is not moved.
  public func windowAttention(
    table: Tensor, padding: Tensor? = nil, heads: Int, window: Int, shift: Int = 0
  ) throws -> Tensor {
    let name = "window_attention"
    try requireFloats(name, [self, table] + (padding.map { [$0] } ?? []))
    let geometry = try windowGeometry(name, heads: heads, window: window, shift: shift)
    let positions = (2 * window - 1) * (2 * window - 1)
    guard table.shape == [positions, heads] else {
      throw KDSError.shape(
        "\(name): table \(table.shape) must be [\(positions), \(heads)] for \(heads) heads and "
          + "windows of \(window)")
    }
    if let padding, padding.shape != [shape[3]] {
      throw KDSError.shape("\(name): padding \(padding.shape) must be [\(shape[3])]")
    }
    let source = try plain()
    let result = try Tensor(uninitialized: Array(shape.dropLast()) + [geometry.channels])
    Kernels.windowAttention(
      source.floats, geometry, table: table.floats,
      filler: padding.map { UnsafePointer($0.floats) }, output: result.floats)
    let (input, biases, filler) = (
      source.detachedView(), table.detachedView(), padding?.detachedView()
    )
    let inputs = [source, table] + (padding.map { [$0] } ?? [])
    return Tape.record(result, name, inputs) { gradient in
      let toInput = try Tensor(uninitialized: input.shape)
      let toTable = try Tensor(uninitialized: biases.shape)
      let toPadding = try filler.map { try Tensor(uninitialized: $0.shape) }
      Kernels.windowAttentionBackward(
        input.floats, geometry, table: biases.floats,
        filler: filler.map { UnsafePointer($0.floats) }, gradOutput: gradient.floats,
        WindowAttentionGradients(
          qkv: toInput.floats, table: toTable.floats, filler: toPadding?.floats))
      return [toInput, toTable] + (toPadding.map { [$0] } ?? [])
    }
  }

  private func windowGeometry(
    _ name: String, heads: Int, window: Int, shift: Int
  ) throws -> WindowGeometry {
    guard (1...32).contains(window), (0..<window).contains(shift), (1...4096).contains(heads) else {
      throw KDSError.argument(
        "\(name): window \(window) must be 1 to 32, shift \(shift) 0 to less than that, and heads "
          + "\(heads) 1 to 4096")
    }
    guard rank == 4, shape[3] > 0, shape[3] % (3 * heads) == 0 else {
      throw KDSError.shape(
        "\(name): input \(shape) must be (N, H, W, 3C) with C a multiple of \(heads) heads")
    }
    return WindowGeometry(
      images: shape[0], height: shape[1], width: shape[2], channels: shape[3] / 3, heads: heads,
      window: window, shift: shift)
  }
}
