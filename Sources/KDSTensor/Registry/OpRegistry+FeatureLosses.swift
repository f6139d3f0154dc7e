private struct WeightedOptions: Codable {
  var factor: Float = 1
}

private struct DivergenceOptions: Codable {
  var temperature: Float = 1
  var form = DivergenceForm.kl
  var reduction = Reduction.paper
}

private struct AttentionOptions: Codable {
  var form = AttentionForm.code
  var reduction = Reduction.paper
}

private struct MapOptions: Codable {
  var reduction = Reduction.paper
}

extension OpRegistry {
  /// Losses of whole feature maps.
  static let featureLosses: [OpEntry] = [
    OpEntry(
      "weighted_squared_error", 2...4, WeightedOptions(),
      "factor · sum of weights · (S - T)²: student, teacher, weights (N, 1, H, W) and/or (N, C)"
    ) { inputs, options in
      let weights = Array(inputs.dropFirst(2))
      let (spatial, channels) = (weights.filter { $0.rank == 4 }, weights.filter { $0.rank == 2 })
      guard spatial.count < 2, channels.count < 2, spatial.count + channels.count == weights.count
      else {
        throw KDSError.shape(
          "weighted_squared_error: weights are at most one (N, 1, H, W) and one (N, C), not "
            + weights.map { "\($0.shape)" }.joined(separator: " and "))
      }
      return try inputs[0].weightedSquaredError(
        teacher: inputs[1], spatial: spatial.first, channels: channels.first,
        factor: options.factor)
    },
    OpEntry(
      "attention_transfer", 2...2, AttentionOptions(), "AT: student map, teacher map"
    ) {
      try $0[0].attentionTransfer(teacher: $0[1], form: $1.form, reduction: $1.reduction)
    },
    OpEntry(
      "channel_wise_divergence", 2...2, DivergenceOptions(), "CWD: student map, teacher map"
    ) {
      try $0[0].channelWiseDivergence(
        teacher: $0[1], temperature: $1.temperature, form: $1.form, reduction: $1.reduction)
    },
    OpEntry("context_pool", 2...2, "context of a GC block: map, weight (1, C, 1, 1)") {
      try $0[0].contextPool(weight: $0[1])
    },
    OpEntry(
      "focal_global", 3...17, FocalGlobalOptions(),
      "FGD: student map, teacher map, mask (N, 1, H, W), then 7 tensors of each context block"
    ) { inputs, options in
      let (each, learned) = (ContextBlock.count, Array(inputs.dropFirst(3)))
      guard learned.isEmpty || learned.count == 2 * each else {
        throw KDSError.argument(
          "focal_global: takes 3 tensors or 3 and \(2 * each) of the context blocks, got "
            + "\(inputs.count)")
      }
      let (own, other) = (ContextBlock(Array(learned.prefix(each))), Array(learned.suffix(each)))
      return try inputs[0].focalGlobal(
        teacher: inputs[1], mask: inputs[2],
        blocks: learned.isEmpty ? nil : (own, ContextBlock(other)), options)
    },
    OpEntry(
      "normalized_squared_error", 2...2, MapOptions(),
      "squared distance of maps of norm 1 per image: student map, teacher map"
    ) {
      try $0[0].normalizedSquaredError(teacher: $0[1], reduction: $1.reduction)
    },
    OpEntry("pearson", 2...2, MapOptions(), "PKD: student map, teacher map") {
      try $0[0].pearson(teacher: $0[1], reduction: $1.reduction)
    },
  ]
}
