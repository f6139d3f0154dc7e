extension Kernels {
  /// Draws a mini-batch of anchors or RoIs: at most `batch * fraction` positives, the rest negatives.
  ///
  /// Too few positives are made up by negatives, as in Faster R-CNN; too few negatives leave the
  /// batch short. The draw depends on the generator alone.
  /// - Parameter matches: (n) as `matchAnchors` writes it: >= 0 positive, -1 negative, else ignored.
  /// - Returns: indices of positives and negatives, each ascending.
  public static func sampleMatches(
    _ matches: UnsafePointer<Int32>, _ n: Int, batch: Int, positiveFraction: Double,
    random: inout CounterRandom
  ) -> (positives: [Int], negatives: [Int]) {
    var positives: [Int] = []
    var negatives: [Int] = []
    for i in 0..<n {
      if matches[i] >= 0 {
        positives.append(i)
      } else if matches[i] == matchNegative {
        negatives.append(i)
      }
    }
    let size = max(batch, 0)
    let fraction = positiveFraction > 0 ? min(positiveFraction, 1) : 0
    let quota = Int((Double(size) * fraction).rounded(.down))
    let chosen = random.sample(quota, of: positives)
    let rest = random.sample(size - chosen.count, of: negatives)
    return (chosen.sorted(), rest.sorted())
  }
}
