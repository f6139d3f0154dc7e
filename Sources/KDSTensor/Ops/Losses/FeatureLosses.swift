import KDSKernels

/// What CWD compares two distributions by.
public enum DivergenceForm: String, Codable, CaseIterable {
  /// Kullback-Leibler divergence.
  case kl
  /// Cross-entropy: the same gradient, without the teacher's entropy in the value.
  case ce
}

/// The two published forms of attention transfer.
public enum AttentionForm: String, Codable, CaseIterable {
  /// Mean of squares, as in the authors' code.
  case code
  /// Norm per image, averaged over the images, as in the paper.
  case paper
}

extension Tensor {
  /// CWD, channel-wise distillation (Shu et al., ICCV 2021), of a student's map (self):
  /// τ² / (N C) · sum over n, c of KL(phi(T) ‖ phi(S)), phi the softmax over the pixels of y / τ.
  ///
  /// - Shapes: self and teacher (N, C, H, W), blocked or plain. Gradient to the student only.
  /// - Note: "paper" and "mean" divide by N · C, "sum" does not. An empty map gives 0.
  public func channelWiseDivergence(
    teacher: Tensor, temperature: Float = 1, form: DivergenceForm = .kl,
    reduction: Reduction = .paper
  ) throws -> Tensor {
    let name = "channel_wise_divergence"
    let maps = try MapPair(name, self, teacher.detached())
    guard temperature > 0, temperature.isFinite, (1 / temperature).isFinite else {
      throw KDSError.argument("\(name): temperature must be positive, not \(temperature)")
    }
    let rows = shape[0] * shape[1]
    let share = try reduction.factor(name, mean: rows) * Double(temperature * temperature)
    return try maps.loss(name, factor: share) {
      Kernels.channelWiseDivergence(
        maps.student.floats, maps.teacher.floats, maps.geometry, temperature: temperature,
        entropy: form == .kl, scale: Float(share), gradient: $0)
    }
  }

  /// PKD, Pearson distillation (Cao et al., NeurIPS 2022), of a student's map (self):
  /// 1/2 · mean of (z_S - z_T)², z = (F - mean) / (std + 1e-6) per channel over the batch's pixels.
  ///
  /// - Shapes: self and teacher (N, C, H, W), blocked or plain. Gradient to the student only.
  /// - Note: "paper" is as above; "mean" and "sum" are without the half. One value per channel has
  ///   z = 0; a constant channel too.
  public func pearson(teacher: Tensor, reduction: Reduction = .paper) throws -> Tensor {
    let name = "pearson"
    let maps = try MapPair(name, self, teacher.detached())
    let share = try reduction.factor(name, mean: count) * (reduction == .paper ? 0.5 : 1)
    return try maps.loss(name, factor: share) {
      Kernels.pearson(
        maps.student.floats, maps.teacher.floats, maps.geometry, scale: Float(share), gradient: $0)
    }
  }

  /// Squared distance of maps scaled to norm 1 per image, of a student's map (self): FitNets on
  /// normalised features (mmrazor `L2Loss`), sum over n of ‖S_n / ‖S_n‖ - T_n / ‖T_n‖‖².
  ///
  /// - Shapes: self and teacher (N, C, H, W), blocked or plain. Gradient to the student only.
  /// - Note: "paper" divides by N, "mean" by the number of elements. An image of zeros counts as the
  ///   zero vector and gets no gradient.
  public func normalizedSquaredError(
    teacher: Tensor, reduction: Reduction = .paper
  ) throws -> Tensor {
    let name = "normalized_squared_error"
    let maps = try MapPair(name, self, teacher.detached())
    let share = try reduction.factor(name, mean: reduction == .paper ? shape[0] : count)
    let images = shape[0]
    return try maps.loss(name, factor: share) {
      Kernels.normalizedSquares(
        maps.student.floats, maps.teacher.floats, images: images,
        size: maps.geometry.blocks * maps.geometry.planeSize, scale: Float(share), gradient: $0)
    }
  }

  /// Attention transfer (Zagoruyko & Komodakis, ICLR 2017) of a student's map (self): with
  /// Q = mean over c of F², q = Q / ‖Q‖ per image,
  ///
  ///     code     mean over images and pixels of (q_S - q_T)²
  ///     paper    mean over images of ‖q_S - q_T‖
  ///
  /// - Shapes: self (N, C, H, W), teacher (N, C', H, W), blocked or plain. Gradient to the student only.
  /// - Note: "sum" sums instead of averaging. Norms are at least 1e-12.
  public func attentionTransfer(
    teacher: Tensor, form: AttentionForm = .code, reduction: Reduction = .paper
  ) throws -> Tensor {
    let name = "attention_transfer"
    let maps = try MapPair(name, self, teacher.detached(), sameChannels: false)
    let (images, area) = (shape[0], shape[2] * shape[3])
    let share = try reduction.factor(name, mean: form == .code ? images * area : images)
    let attention = try maps.attentionMaps()
    let slopes = try Tensor(uninitialized: [images, area])
    let value = Kernels.attentionTransfer(
      attention.student.floats, attention.teacher.floats, images: images, area: area,
      squared: form == .code, scale: share, slopes: slopes.floats)
    let (student, geometry) = (maps.student.detached(), maps.geometry)
    return try recordLoss(
      name, value * share, [maps.student],
      [
        { share in
          let gradient = try student.uninitializedLike()
          Kernels.meanSquaresBackward(
            student.floats, slopes: slopes.floats, geometry, factor: share, gradient.floats)
          return gradient
        }
      ])
  }
}

extension Reduction {
  /// What a sum over a loss is multiplied with; `count` for "paper" and "mean", 0 for nothing.
  func factor(_ name: String, mean count: Int) throws -> Double {
    switch self {
    case .sum: return 1
    case .paper, .mean: return count > 0 ? 1 / Double(count) : 0
    case .none:
      throw KDSError.argument("\(name): reduction must be paper, mean or sum, not none")
    }
  }
}

extension MapPair {
  /// A loss whose kernel gives the sum and writes factor · gradient of the student where wanted.
  fileprivate func loss(
    _ name: String, factor: Double, _ kernel: (UnsafeMutablePointer<Float>?) -> Double
  ) throws -> Tensor {
    let gradient = Tape.tracks([student]) ? try student.uninitializedLike() : nil
    let value = kernel(gradient?.floats) * factor
    return try recordLoss(name, value, [student], [gradient?.shared])
  }

  /// Means of squares over the channels of both, (N, H · W).
  fileprivate func attentionMaps() throws -> (student: Tensor, teacher: Tensor) {
    let shape = [geometry.images, geometry.area]
    let (own, other) = (try Tensor(uninitialized: shape), try Tensor(uninitialized: shape))
    Kernels.meanSquares(student.floats, geometry, own.floats)
    Kernels.meanSquares(teacher.floats, teacherGeometry, other.floats)
    return (own, other)
  }
}
