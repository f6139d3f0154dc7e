import KDSTensor

/// A part of a network: parameters, buffers and children under dotted names, in a fixed order.
///
/// Names follow PyTorch's `state_dict`, so that weights from there load unchanged. A subclass registers
/// in its initializer what it owns; nothing is found by reflection.
open class Module {
  public private(set) var parameters: [(name: String, tensor: Tensor)] = []
  public private(set) var buffers: [(name: String, tensor: Tensor)] = []
  public private(set) var children: [(name: String, module: Module)] = []
  /// Whether batch normalization uses batch statistics and dropout drops.
  public private(set) var isTraining = true

  public init() {}

  /// Adds a learned tensor and returns it.
  @discardableResult
  public func parameter(_ name: String, _ tensor: Tensor) -> Tensor {
    tensor.requiresGrad = true
    parameters.append((name, tensor))
    return tensor
  }

  /// Adds a tensor that is saved but not learned, and returns it.
  @discardableResult
  public func buffer(_ name: String, _ tensor: Tensor) -> Tensor {
    buffers.append((name, tensor))
    return tensor
  }

  /// Adds a part and returns it.
  @discardableResult
  public func child<Part: Module>(_ name: String, _ module: Part) -> Part {
    children.append((name, module))
    return module
  }

  /// Puts another part in the place of the child of that name.
  public func replaceChild(_ name: String, with module: Module) throws {
    guard let index = children.firstIndex(where: { $0.name == name }) else {
      throw KDSError.argument("module: no part is called \"\(name)\"")
    }
    children[index].module = module
  }

  /// The part of that name.
  public func childModule(_ name: String) -> Module? {
    children.first { $0.name == name }?.module
  }

  /// All learned tensors below, by dotted name.
  public func namedParameters(prefix: String = "") -> [(name: String, tensor: Tensor)] {
    parameters.map { (prefix + $0.name, $0.tensor) }
      + children.flatMap { $0.module.namedParameters(prefix: prefix + $0.name + ".") }
  }

  /// All saved but not learned tensors below, by dotted name.
  public func namedBuffers(prefix: String = "") -> [(name: String, tensor: Tensor)] {
    buffers.map { (prefix + $0.name, $0.tensor) }
      + children.flatMap { $0.module.namedBuffers(prefix: prefix + $0.name + ".") }
  }

  /// Every module below with its dotted name, this one first (under "").
  public func namedModules(prefix: String = "") -> [(name: String, module: Module)] {
    [(prefix, self)]
      + children.flatMap {
        $0.module.namedModules(prefix: prefix.isEmpty ? $0.name : prefix + "." + $0.name)
      }
  }

  /// Switches this module and all below between training and evaluation.
  open func setTraining(_ training: Bool) {
    isTraining = training
    for entry in children { entry.module.setTraining(training) }
  }

  /// Stops (or restarts) learning of every parameter below.
  public func setRequiresGrad(_ learns: Bool) {
    for entry in namedParameters() {
      entry.tensor.requiresGrad = learns
      if !learns { entry.tensor.gradient = nil }
    }
  }

  /// Drops all gradients below.
  public func clearGradients() {
    for entry in namedParameters() { entry.tensor.gradient = nil }
  }

  /// One line for summaries: the sizes that matter.
  open var summary: String { "\(type(of: self))" }
}
