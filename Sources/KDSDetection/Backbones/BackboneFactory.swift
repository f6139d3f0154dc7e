import KDSNN
import KDSTensor

/// The names that `makeBackbone` knows.
public let backboneNames =
  ["resnet_small", "alexnet", "alexnet_owt", "vgg_m", "vgg16"] + ResNetPlan.names + SwinPlan.names

/// Builds a backbone with fresh weights.
///
/// - Throws: `KDSError.argument` for an unknown name (listing what exists) or a value out of range.
public func makeBackbone(
  _ configuration: BackboneConfiguration, _ initializer: Initializer
) throws -> Backbone {
  try checkSizes(configuration)
  let backbone: Backbone
  switch configuration.name {
  case "resnet_small": backbone = try ResNetSmall(configuration, initializer)
  case "alexnet":
    backbone = try ChainBackbone(configuration, .alexnet(padded: configuration.padded), initializer)
  case "alexnet_owt": backbone = try ChainBackbone(configuration, .alexnetOneTower(), initializer)
  case "vgg_m": backbone = try ChainBackbone(configuration, .vggM(), initializer)
  case "vgg16": backbone = try ChainBackbone(configuration, .vgg16(), initializer)
  case let name where ResNetPlan(name) != nil:
    backbone = try ResNet(configuration, ResNetPlan(name)!, initializer)
  case let name where SwinPlan(name) != nil:
    backbone = try SwinTransformer(configuration, SwinPlan(name)!, initializer)
  default:
    let known = backboneNames.map { "\"\($0)\"" }.joined(separator: ", ")
    throw KDSError.argument("backbone: \"\(configuration.name)\" is not one of \(known)")
  }
  try backbone.applyFrozenStages()
  return backbone
}

private func checkSizes(_ configuration: BackboneConfiguration) throws {
  let (name, width) = (configuration.name, configuration.width)
  // Above a few times the published width the weights alone would not fit; that is a slip of the pen.
  guard width.isFinite, width > 0, width <= 8 else {
    throw KDSError.argument("\(name): width \(width) must be above 0 and at most 8")
  }
  guard (1...1024).contains(configuration.in_channels) else {
    throw KDSError.argument("\(name): in_channels \(configuration.in_channels) must be 1 to 1024")
  }
  guard (0...1).contains(configuration.norm_epsilon) else {
    throw KDSError.argument("\(name): norm_epsilon \(configuration.norm_epsilon) must be 0 to 1")
  }
  guard configuration.dcn_stages.isEmpty || ResNetPlan(name) != nil else {
    throw KDSError.argument(
      "\(name): dcn_stages are for \(ResNetPlan.names.joined(separator: ", "))")
  }
  guard configuration.drop_path >= 0, configuration.drop_path < 1 else {
    throw KDSError.argument(
      "\(name): drop_path \(configuration.drop_path) must be at least 0 and below 1")
  }
  guard configuration.drop_path == 0 || SwinPlan(name) != nil else {
    throw KDSError.argument("\(name): drop_path is for \(SwinPlan.names.joined(separator: ", "))")
  }
}
