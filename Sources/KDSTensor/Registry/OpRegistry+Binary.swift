import KDSKernels

private struct SignOptions: Codable {
  var strict = false
}

private struct RuleOptions: Codable {
  var rule = BinaryGradient.paper.rawValue
}

private struct BitsOptions: Codable {
  var bits = 1
}

private struct BinaryConv2dOptions: Codable {
  var stride = [1, 1]
  /// top, left, bottom, right
  var padding = [0, 0, 0, 0]
  var dilation = [1, 1]
  var rule = BinaryGradient.paper.rawValue
  var inputScale = false
  enum CodingKeys: String, CodingKey {
    case stride, padding, dilation, rule
    case inputScale = "input_scale"
  }

  func options(_ name: String) throws -> ConvolutionOptions {
    var plain = Conv2dOptions()
    (plain.stride, plain.padding, plain.dilation) = (stride, padding, dilation)
    return try plain.options(name)
  }
}

extension OpRegistry {
  static let binaryNetworks: [OpEntry] = [
    OpEntry(
      "binary_sign", 1...1, SignOptions(),
      "+1 where x >= 0, else -1; the gradient passes where |x| <= 1 (strict: < 1)"
    ) { try $0[0].binarySign(strict: $1.strict) },
    OpEntry(
      "binary_filters", 1...1, RuleOptions(),
      "alpha sign(W), alpha the mean |W| of each filter; rule paper or official for the gradient"
    ) { try $0[0].binaryFilters(rule("binary_filters", $1.rule)) },
    OpEntry(
      "quantize_bits", 1...1, BitsOptions(), "x in [-1, 1] at the nearest of 2^bits levels, ties up"
    ) { try $0[0].quantizedBits($1.bits) },
    OpEntry(
      "binary_conv2d", 2...3, BinaryConv2dOptions(),
      "convolution of sign(input) with alpha sign(weight): inputs input, weight, bias; padding adds "
        + "nothing; input_scale multiplies by K"
    ) {
      try $0[0].binaryConv2d(
        $0[1], bias: $0.optional(2), $1.options("binary_conv2d"),
        rule: rule("binary_conv2d", $1.rule), inputScale: $1.inputScale)
    },
  ]

  private static func rule(_ name: String, _ rule: String) throws -> BinaryGradient {
    guard let found = BinaryGradient(rawValue: rule) else {
      throw KDSError.argument("\(name): rule \"\(rule)\" is neither \"paper\" nor \"official\"")
    }
    return found
  }
}
