import KDSTensor

/// Layers run one after another, under the names "0", "1", … as in `torch.nn.Sequential`.
public final class Sequential: Module, UnaryLayer {
  public init(_ layers: [any UnaryLayer] = []) {
    super.init()
    for layer in layers { append(layer) }
  }

  /// Adds a layer at the end.
  public func append(_ layer: any UnaryLayer) {
    child("\(children.count)", layer as Module)
  }

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    var value = input
    for entry in children { value = try layer(entry.name)(value) }
    return value
  }
}
