import KDSKernels

private struct RegionWeightOptions: Codable {
  var spatialScale: Float = 1
  var normalize = true
  enum CodingKeys: String, CodingKey {
    case spatialScale = "spatial_scale"
    case normalize
  }
}

extension OpRegistry {
  /// Parts of losses over regions of maps.
  static let regionLosses: [OpEntry] = [
    OpEntry("highest_score", 1...1, "(N, 1, H, W): sigmoid of the highest channel; no gradient") {
      try $0[0].highestScore()
    },
    OpEntry(
      "region_weights", 2...2, RegionWeightOptions(),
      "(N, 1, H, W): what each place counts in the squared errors of crops: map, rois (R, 5)"
    ) {
      try $0[0].regionWeights(
        $0[1].plain(), spatialScale: $1.spatialScale, normalize: $1.normalize)
    },
  ]
}
