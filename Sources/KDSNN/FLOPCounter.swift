import KDSKernels
import KDSTensor

/// What one layer did during a counted forward pass.
public struct LayerCost {
  /// Dotted name of the layer, "" when it is not below the module that was asked.
  public var name: String
  /// Floating-point operations: two per multiply-add, as if computed directly.
  public var flops: Double
  /// Shapes of the last call.
  public var inputShape, outputShape: [Int]
  /// Calls during the pass; `flops` is their sum.
  public var calls: Int
}

/// Counts the arithmetic of convolutions, linear layers and attention while a forward pass runs.
///
/// Layers report themselves when a count is active; otherwise a report costs one comparison.
public enum FLOPCounter {
  nonisolated(unsafe) private static var active = false
  nonisolated(unsafe) private static var costs: [ObjectIdentifier: LayerCost] = [:]
  nonisolated(unsafe) private static var order: [ObjectIdentifier] = []
  private static let reports = Lock()
  /// One count at a time.
  private static let session = Lock()

  /// Runs `forward` without recording gradients and returns what each layer below `root` did, in order
  /// of first use. Layers that ran but are not below `root` come under the name "".
  ///
  /// Counts of different threads exclude one another; other forward passes must not run meanwhile.
  public static func count(_ root: Module, _ forward: () throws -> Void) throws -> [LayerCost] {
    try session.withLock {
      reports.withLock {
        costs.removeAll()
        order.removeAll()
        active = true
      }
      defer { reports.withLock { active = false } }
      try Tape.withoutGrad(forward)
      let names = Dictionary(
        root.namedModules().map { (ObjectIdentifier($0.module), $0.name) },
        uniquingKeysWith: { first, _ in first })
      return reports.withLock {
        order.compactMap { key in
          costs[key].map { cost in
            var named = cost
            named.name = names[key] ?? ""
            return named
          }
        }
      }
    }
  }

  /// Reports one call of a convolution: weight (K, C/groups, kh, kw), output (N, K, H', W').
  public static func reportConvolution(
    _ layer: Module, weight: Tensor, input: Tensor, output: Tensor
  ) {
    guard active else { return }
    let perOutput = weight.shape.dropFirst().reduce(1, *)
    report(layer, 2 * Double(output.count) * Double(perOutput), input, output)
  }

  /// Reports one call of a linear layer: weight (out, in), output (N, out).
  public static func reportLinear(_ layer: Module, weight: Tensor, input: Tensor, output: Tensor) {
    guard active else { return }
    report(layer, 2 * Double(output.count) * Double(weight.shape[1]), input, output)
  }

  /// Reports products between activations, such as those of attention, by their multiply-adds.
  public static func reportProducts(
    _ layer: Module, _ multiplyAdds: Int, input: Tensor, output: Tensor
  ) {
    guard active else { return }
    report(layer, 2 * Double(multiplyAdds), input, output)
  }

  private static func report(_ layer: Module, _ flops: Double, _ input: Tensor, _ output: Tensor) {
    reports.withLock {
      let key = ObjectIdentifier(layer)
      let earlier = costs[key]
      if earlier == nil { order.append(key) }
      costs[key] = LayerCost(
        name: "", flops: flops + (earlier?.flops ?? 0), inputShape: input.shape,
        outputShape: output.shape, calls: 1 + (earlier?.calls ?? 0))
    }
  }
}
