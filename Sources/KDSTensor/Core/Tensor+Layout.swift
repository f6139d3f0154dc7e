import KDSKernels

extension Tensor {
  /// The same values in plain layout, on the tape; `self` when they are plain already.
  public func plain() throws -> Tensor { try inLayout(.plain) }

  /// The same values in the given layout, on the tape. Only rank-4 floats can be blocked.
  public func inLayout(_ wanted: Layout) throws -> Tensor {
    if layout == wanted { return self }
    guard rank == 4, dtype == .float32 else {
      throw KDSError.shape("layout: \(wanted) needs a float tensor (N, C, H, W), not \(shape)")
    }
    if layout == .half || wanted == .half { return try converted(to: wanted) }
    if layout != .plain && wanted != .plain { return try plain().inLayout(wanted) }
    let result = try Tensor(uninitialized: shape, layout: wanted)
    let (images, channels, area) = (shape[0], shape[1], shape[2] * shape[3])
    if case .blocked(let block) = wanted {
      Kernels.blockChannels(
        floats, result.floats, images: images, channels: channels, area: area, block: block)
    } else {
      Kernels.unblockChannels(
        floats, result.floats, images: images, channels: channels, area: area, block: layout.block)
    }
    let original = layout
    return Tape.record(result, "layout", [self]) { [try $0.inLayout(original)] }
  }

  /// Between bfloat16 and float32.
  private func converted(to wanted: Layout) throws -> Tensor {
    let result = try Tensor(uninitialized: shape, layout: wanted)
    if wanted == .half {
      Kernels.packHalf(floats, MapGeometry(self), result.halves)
    } else {
      Kernels.unpackHalf(halves, MapGeometry(result), result.floats)
    }
    let original = layout
    return Tape.record(result, "layout", [self]) { [try $0.inLayout(original)] }
  }

  /// The same values as float32, for operations that have no bfloat16 form.
  func widened() throws -> Tensor { layout == .half ? try inLayout(.preferred) : self }

  /// The same elements under another shape (-1 infers one size), on the tape; storage is shared.
  public func reshaped(_ newShape: [Int]) throws -> Tensor {
    let source = try plain()
    var target = newShape
    if let hole = target.firstIndex(of: -1) {
      let known = target.enumerated().reduce(1) { $1.offset == hole ? $0 : $0 * $1.element }
      target[hole] = known > 0 ? count / known : 0
    }
    guard target.allSatisfy({ $0 >= 0 }), target.reduce(1, *) == count else {
      throw KDSError.shape("reshape: \(shape) has \(count) elements and cannot become \(newShape)")
    }
    if target == source.shape { return source }
    let result = Tensor(storage: source.storage, shape: target, dtype: dtype)
    let original = source.shape
    return Tape.record(result, "reshape", [source]) { [try $0.reshaped(original)] }
  }
}
