import KDSKernels

extension Tensor {
  /// - log IoU of box pairs (Yu et al. 2016; mmdet's `IoULoss`). Gradient to the predictions (self)
  /// only, and none where the IoU is below `eps`.
  ///
  /// - Shapes: self and targets (P, 4), x1 y1 x2 y2 in pixels; weights (P) or nil for 1.
  /// - Note: "mean" (and "paper") divides by the number of pairs; no pairs give 0.
  public func logIoU(
    _ targets: Tensor, weights: Tensor? = nil, eps: Float = 1e-6, reduction: Reduction = .mean
  ) throws -> Tensor {
    let name = "log_iou"
    let boxes = try lossRows(name, self, columns: 4)
    let goals = try lossRows(name, targets.detached(), columns: 4)
    try requireSameShape(name, "boxes and targets", shape, targets.shape)
    guard eps > 0, eps.isFinite else {
      throw KDSError.argument("\(name): eps must be a positive number, not \(eps)")
    }
    if let weights {
      try requireFloats(name, [weights])
      try requireSameShape(name, "weights and boxes", weights.shape, [shape[0]])
    }
    return try FusedLoss(
      name: name, student: boxes, rows: shape[0], columns: 4, shape: [shape[0]]
    ) { range, scale, gradient in
      Kernels.logIoULoss(
        boxes.floats + 4 * range.lowerBound, goals.floats + 4 * range.lowerBound, range.count,
        eps: eps, weights: weights.map { UnsafePointer($0.floats + range.lowerBound) },
        scale: scale, gradient: gradient)
    }.reduced(reduction)
  }

  /// CrossKD's alignment (Wang et al. 2024): every channel over (N, H, W) brought to the other map's
  /// mean and deviation, (x - mean_x) / (std_x + eps) · std_y + mean_y, deviations unbiased.
  /// Gradient to self only, through its mean and deviation.
  ///
  /// - Shapes: self and other (N, C, H, W); a channel without spread becomes the other's mean.
  public func standardizedLike(_ other: Tensor, eps: Float = 1e-6) throws -> Tensor {
    let name = "standardize_like"
    try requireFloats(name, [self, other])
    try requireSameShape(name, "both maps", shape, other.shape)
    guard rank == 4 else { throw KDSError.shape("\(name): maps \(shape) must be (N, C, H, W)") }
    guard eps > 0, eps.isFinite else {
      throw KDSError.argument("\(name): eps must be a positive number, not \(eps)")
    }
    let (x, like) = (try plain(), try other.detached().plain())
    let (images, channels, area) = (shape[0], shape[1], shape[2] * shape[3])
    let result = try Tensor(uninitialized: shape)
    let kept = try Storage(byteCount: max(channels, 1) * 3 * MemoryLayout<Double>.stride)
    let moments = kept.pointer.bindMemory(to: Double.self, capacity: max(channels, 1) * 3)
    Kernels.standardizeLike(
      x.floats, like.floats, images: images, channels: channels, area: area, eps: eps,
      out: result.floats, moments: moments)
    let source = x.detachedView()
    return Tape.record(result, name, [x]) { gradient in
      let back = try Tensor(uninitialized: source.shape)
      let incoming = try gradient.plain()
      Kernels.standardizeLikeBackward(
        source.floats, gradOutput: incoming.floats,
        moments: kept.pointer.assumingMemoryBound(to: Double.self), images: images,
        channels: channels, area: area, eps: eps, gradInput: back.floats)
      return [back]
    }
  }

  /// Euclidean distances of all pairs of rows: (K, D) gives (K, K). Rows that coincide pass no
  /// gradient between them.
  public func pairwiseDistances() throws -> Tensor {
    let name = "pairwise_distance"
    try requireFloats(name, [self])
    guard rank == 2 else { throw KDSError.shape("\(name): needs a tensor (K, D), got \(shape)") }
    let (count, columns) = (shape[0], shape[1])
    let result = try Tensor(uninitialized: requireSize(name, [count, count]))
    Kernels.pairwiseDistance(floats, count, columns: columns, result.floats)
    let (source, distances) = (detachedView(), result.detachedView())
    return Tape.record(result, name, [self]) { gradient in
      let back = try Tensor(uninitialized: source.shape)
      Kernels.pairwiseDistanceBackward(
        source.floats, distances: distances.floats, gradOutput: gradient.floats, count,
        columns: columns, gradInput: back.floats)
      return [back]
    }
  }
}
