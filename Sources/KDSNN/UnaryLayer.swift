import KDSTensor

/// A layer with one input and one output, which surgery may put in the place of another.
///
/// Whoever owns such a layer keeps no typed reference to it: it registers the child by name and calls
/// `try layer("conv1")(input)`, so that `replaceChild` takes effect at once.
public protocol UnaryLayer: Module {
  func callAsFunction(_ input: Tensor) throws -> Tensor
}

/// A layer that may end with an activation, and can stop before it.
public protocol ActivatedLayer: UnaryLayer {
  /// What the activation would get.
  func beforeActivation(_ input: Tensor) throws -> Tensor
}

extension Conv2d: ActivatedLayer {}
extension BatchNorm2d: ActivatedLayer {}
extension GroupNorm2d: ActivatedLayer {}

extension Linear: UnaryLayer {}

/// What stands under a name at this moment; to be called, not to be kept.
public struct CurrentLayer {
  public let module: any UnaryLayer

  public func callAsFunction(_ input: Tensor) throws -> Tensor {
    try module.callAsFunction(input)
  }

  /// The same without its activation; a layer that has none to leave out runs as it is.
  public func beforeActivation(_ input: Tensor) throws -> Tensor {
    guard let layer = module as? any ActivatedLayer else { return try module.callAsFunction(input) }
    return try layer.beforeActivation(input)
  }
}

extension Module {
  /// The child of that name as it is now, after any surgery.
  public func layer(_ name: String) throws -> CurrentLayer {
    guard let found = childModule(name) as? any UnaryLayer else {
      throw KDSError.runtime("\(type(of: self)): no layer is called \"\(name)\"")
    }
    return CurrentLayer(module: found)
  }

  /// The module at a dotted path below this one; "" is this one.
  public func module(at path: String) -> Module? {
    path.split(separator: ".").reduce(self as Module?) { $0?.childModule(String($1)) }
  }

  /// Puts another part at a dotted path below this one.
  public func replaceModule(at path: String, with replacement: Module) throws {
    var names = path.split(separator: ".").map(String.init)
    let last = names.popLast() ?? ""
    guard let owner = module(at: names.joined(separator: ".")) else {
      throw KDSError.argument("module: no part is called \"\(path)\"")
    }
    try owner.replaceChild(last, with: replacement)
  }
}
