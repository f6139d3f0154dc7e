import KDSTensor

/// A layer with one input and one output, which surgery may put in the place of another.
///
/// Whoever owns such a layer keeps no typed reference to it: it registers the child by name and calls
/// `try run("conv1", on: input)`, so that `replaceChild` takes effect at once.
public protocol UnaryLayer: Module {
  func callAsFunction(_ input: Tensor) throws -> Tensor
}

extension Conv2d: UnaryLayer {}
extension Linear: UnaryLayer {}
extension BatchNorm2d: UnaryLayer {}

extension Module {
  /// The child of that name as it is now, after any surgery.
  public func layer(_ name: String) throws -> any UnaryLayer {
    guard let found = childModule(name) as? any UnaryLayer else {
      throw KDSError.runtime("\(type(of: self)): no layer is called \"\(name)\"")
    }
    return found
  }

  /// Runs the child of that name as it is now.
  public func run(_ name: String, on input: Tensor) throws -> Tensor {
    let current = try layer(name)
    return try current.callAsFunction(input)
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
