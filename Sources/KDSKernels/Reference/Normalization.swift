extension Reference {
  /// What a normalisation produced, and the statistics it used.
  public struct Normalized {
    public var output: [Float]
    public var means: [Float]
    public var inverses: [Float]
  }

  /// Batch normalisation of (images, channels, area) with the batch's own (biased) statistics.
  public static func batchNorm(
    _ x: [Float], images: Int, channels: Int, area: Int, weight: [Float], bias: [Float], eps: Float
  ) -> Normalized {
    normalize(
      x, sets: channels, eps: eps, setOf: { $0 / area % channels },
      affine: { (weight[$0 / area % channels], bias[$0 / area % channels]) })
  }

  /// Batch normalisation with given statistics (inference, or a frozen layer).
  public static func batchNormInference(
    _ x: [Float], channels: Int, area: Int, weight: [Float], bias: [Float], mean: [Float],
    variance: [Float], eps: Float
  ) -> [Float] {
    x.indices.map { i in
      let c = i / area % channels
      let root = (Double(variance[c]) + Double(eps)).squareRoot()
      return Float((Double(x[i]) - Double(mean[c])) / root * Double(weight[c]) + Double(bias[c]))
    }
  }

  /// Gradients of `batchNorm` by x, weight and bias.
  public static func batchNormBackward(
    _ x: [Float], gradOutput: [Float], images: Int, channels: Int, area: Int, weight: [Float],
    eps: Float
  ) -> (input: [Float], weight: [Float], bias: [Float]) {
    normalizeBackward(
      x, gradOutput, sets: channels, parameters: channels, eps: eps,
      setOf: { $0 / area % channels }, parameterOf: { $0 / area % channels }, weight: weight)
  }

  /// Layer normalisation of each row of (rows, columns).
  public static func layerNorm(
    _ x: [Float], rows: Int, columns: Int, weight: [Float], bias: [Float], eps: Float
  ) -> Normalized {
    normalize(
      x, sets: rows, eps: eps, setOf: { $0 / columns },
      affine: { (weight[$0 % columns], bias[$0 % columns]) })
  }

  /// Gradients of `layerNorm` by x, weight and bias.
  public static func layerNormBackward(
    _ x: [Float], gradOutput: [Float], rows: Int, columns: Int, weight: [Float], eps: Float
  ) -> (input: [Float], weight: [Float], bias: [Float]) {
    normalizeBackward(
      x, gradOutput, sets: rows, parameters: columns, eps: eps, setOf: { $0 / columns },
      parameterOf: { $0 % columns }, weight: weight)
  }

  /// Group normalisation of (images, channels, area).
  public static func groupNorm(
    _ x: [Float], images: Int, channels: Int, area: Int, groups: Int, weight: [Float],
    bias: [Float], eps: Float
  ) -> Normalized {
    normalize(
      x, sets: images * groups, eps: eps, setOf: { $0 / (channels / groups * area) },
      affine: { (weight[$0 / area % channels], bias[$0 / area % channels]) })
  }

  /// Gradients of `groupNorm` by x, weight and bias.
  public static func groupNormBackward(
    _ x: [Float], gradOutput: [Float], images: Int, channels: Int, area: Int, groups: Int,
    weight: [Float], eps: Float
  ) -> (input: [Float], weight: [Float], bias: [Float]) {
    normalizeBackward(
      x, gradOutput, sets: images * groups, parameters: channels, eps: eps,
      setOf: { $0 / (channels / groups * area) }, parameterOf: { $0 / area % channels },
      weight: weight)
  }

  /// Local response normalisation across channels; see `Kernels.lrnForward`.
  public static func lrn(
    _ x: [Float], images: Int, channels: Int, area: Int, rule: LRNRule
  ) -> [Float] {
    x.indices.map { i in
      let channel = i / area % channels
      let start = channel - rule.size / 2
      var total = 0.0
      for other in start..<start + rule.size where other >= 0 && other < channels {
        let value = Double(x[i + (other - channel) * area])
        total += value * value
      }
      let d = Double(rule.bias) + Double(rule.alpha) / Double(rule.size) * total
      return Float(Double(x[i]) * raised(d, -Double(rule.beta)))
    }
  }

  /// Mean and 1 / sqrt(biased variance + eps) of each set of elements.
  private static func statistics(
    _ x: [Float], sets: Int, eps: Float, setOf: (Int) -> Int
  ) -> (means: [Double], inverses: [Double], counts: [Double]) {
    var means = [Double](repeating: 0, count: sets)
    var squares = means
    var counts = means
    for i in x.indices {
      means[setOf(i)] += Double(x[i])
      counts[setOf(i)] += 1
    }
    for s in 0..<sets { means[s] /= counts[s] }
    for i in x.indices {
      let d = Double(x[i]) - means[setOf(i)]
      squares[setOf(i)] += d * d
    }
    let inverses = (0..<sets).map { 1 / (squares[$0] / counts[$0] + Double(eps)).squareRoot() }
    return (means, inverses, counts)
  }

  private static func normalize(
    _ x: [Float], sets: Int, eps: Float, setOf: (Int) -> Int,
    affine: (Int) -> (weight: Float, bias: Float)
  ) -> Normalized {
    let (means, inverses, _) = statistics(x, sets: sets, eps: eps, setOf: setOf)
    let output = x.indices.map { i in
      let (weight, bias) = affine(i)
      let normal = (Double(x[i]) - means[setOf(i)]) * inverses[setOf(i)]
      return Float(normal * Double(weight) + Double(bias))
    }
    return Normalized(
      output: output, means: means.map(Float.init), inverses: inverses.map(Float.init))
  }

  private static func normalizeBackward(
    _ x: [Float], _ g: [Float], sets: Int, parameters: Int, eps: Float, setOf: (Int) -> Int,
    parameterOf: (Int) -> Int, weight: [Float]
  ) -> (input: [Float], weight: [Float], bias: [Float]) {
    let (means, inverses, counts) = statistics(x, sets: sets, eps: eps, setOf: setOf)
    var averages = [Double](repeating: 0, count: sets)
    var projections = averages
    var gradWeight = [Double](repeating: 0, count: parameters)
    var gradBias = gradWeight
    func normal(_ i: Int) -> Double { (Double(x[i]) - means[setOf(i)]) * inverses[setOf(i)] }
    for i in x.indices {
      let h = Double(g[i]) * Double(weight[parameterOf(i)])
      averages[setOf(i)] += h / counts[setOf(i)]
      projections[setOf(i)] += h * normal(i) / counts[setOf(i)]
      gradWeight[parameterOf(i)] += Double(g[i]) * normal(i)
      gradBias[parameterOf(i)] += Double(g[i])
    }
    let gradInput = x.indices.map { i -> Float in
      let s = setOf(i)
      let h = Double(g[i]) * Double(weight[parameterOf(i)])
      return Float(inverses[s] * (h - averages[s] - normal(i) * projections[s]))
    }
    return (gradInput, gradWeight.map(Float.init), gradBias.map(Float.init))
  }
}
