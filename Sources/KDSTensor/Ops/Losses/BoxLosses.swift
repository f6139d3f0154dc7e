import KDSKernels

extension Tensor {
  /// Generalised IoU loss 1 - GIoU of box pairs (Rezatofighi et al. 2019;
  /// `torchvision.ops.generalized_box_iou_loss`). Gradient to the predictions (self) only.
  ///
  /// - Shapes: self and targets (P, 4), x1 y1 x2 y2 in pixels; weights (P) or nil for 1.
  /// - Note: "mean" (and "paper") divides by the number of pairs; no pairs give 0.
  public func giou(
    _ targets: Tensor, weights: Tensor? = nil, eps: Float = 1e-7, reduction: Reduction = .mean
  ) throws -> Tensor {
    let boxes = try lossRows("giou", self, columns: 4)
    let goals = try lossRows("giou", targets.detached(), columns: 4)
    try requireSameShape("giou", "boxes and targets", shape, targets.shape)
    if let weights {
      try requireFloats("giou", [weights])
      try requireSameShape("giou", "weights and boxes", weights.shape, [shape[0]])
    }
    return try FusedLoss(
      name: "giou", student: boxes, rows: shape[0], columns: 4, shape: [shape[0]]
    ) { range, scale, gradient in
      Kernels.giouLoss(
        boxes.floats + 4 * range.lowerBound, goals.floats + 4 * range.lowerBound, range.count,
        eps: eps, weights: weights.map { UnsafePointer($0.floats + range.lowerBound) },
        scale: scale, gradient: gradient)
    }.reduced(reduction)
  }
}
