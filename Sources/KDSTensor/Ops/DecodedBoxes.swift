import KDSKernels

extension Tensor {
  /// Boxes from Faster R-CNN's code relative to anchors, on the tape; see `Kernels.decodeBoxes`.
  ///
  /// - Shapes: self (P, 4) deltas of these weights; anchors 4·P numbers, xyxy; result (P, 4) xyxy.
  public func decodedBoxes(
    anchors: [Float], weights: SIMD4<Float> = SIMD4(repeating: 1)
  ) throws -> Tensor {
    guard rank == 2, shape[1] == 4, anchors.count == 4 * shape[0], dtype == .float32 else {
      throw KDSError.shape(
        "decode_boxes: deltas \(shape) must be (P, 4) for \(anchors.count / 4) anchors")
    }
    let rows = shape[0]
    let result = try Tensor(uninitialized: shape)
    Kernels.decodeBoxes(floats, anchors: anchors, result.floats, rows, weights: weights)
    let (deltas, boxes) = (detachedView(), result.detachedView())
    return Tape.record(result, "decode_boxes", [self]) { gradient in
      let back = try Tensor(uninitialized: [rows, 4])
      for row in 0..<rows {
        let (g, box, delta) = (
          gradient.floats + 4 * row, boxes.floats + 4 * row, deltas.floats + 4 * row
        )
        let out = back.floats + 4 * row
        for axis in 0..<2 {
          let extent = anchors[4 * row + axis + 2] - anchors[4 * row + axis]
          // Centre: both sides move. Extent: e^d moves them apart, unless it was cut.
          let cut = delta[axis + 2] / weights[axis + 2] > Kernels.boxDeltaLimit
          out[axis] = extent / weights[axis] * (g[axis] + g[axis + 2])
          out[axis + 2] =
            cut
            ? 0
            : 0.5 / weights[axis + 2] * (box[axis + 2] - box[axis]) * (g[axis + 2] - g[axis])
        }
      }
      return [back]
    }
  }
}
