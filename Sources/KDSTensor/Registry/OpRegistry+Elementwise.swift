import KDSKernels

/// A number in the place of the second tensor; `reverse` puts it first.
private struct ScalarOptions: Codable {
  var value: Float?
  var reverse = false
}

private struct ClampOptions: Codable {
  var min: Float?
  var max: Float?
}

private struct CastOptions: Codable {
  var dtype = "float32"
}

private struct QuantizeOptions: Codable {
  var step = 1.0
  var form = QuantizerForm.uniform.rawValue
  var relu = false
}

extension OpRegistry {
  static let elementwise: [OpEntry] =
    unary + arithmetic + comparisons + [
      OpEntry("clamp", 1...1, ClampOptions(), "min(max(x, min), max); null leaves a side open") {
        try $0[0].clamped(min: $1.min ?? -.infinity, max: $1.max ?? .infinity)
      },
      OpEntry("where", 3...3, "a where condition is not 0, else b: inputs condition, a, b") {
        try Tensor.choose($0[0], $0[1], $0[2])
      },
      OpEntry("add_relu", 2...2, "max(a + b, 0) of two tensors of one shape") {
        try $0[0].addingReLU($0[1])
      },
      OpEntry(
        "quantize", 1...1, QuantizeOptions(),
        "nearest of {0, step, 2 step, …} (form uniform) or {0, step, 2 step, 4 step, …} "
          + "(power_of_two), ties down; the gradient passes, with relu where x > 0"
      ) {
        guard let form = QuantizerForm(rawValue: $1.form) else {
          throw KDSError.argument(
            "quantize: form \"\($1.form)\" is neither \"uniform\" nor \"power_of_two\"")
        }
        return try $0[0].quantized(step: Float($1.step), form: form, relu: $1.relu)
      },
      OpEntry("cast", 1...1, CastOptions(), "to dtype float32 or int64 (rounded towards zero)") {
        switch $1.dtype {
        case "float32": return try $0[0].converted(to: .float32)
        case "int64": return try $0[0].converted(to: .int64)
        default: throw KDSError.argument("cast: dtype must be float32 or int64, not \($1.dtype)")
        }
      },
    ]

  private static let unary: [OpEntry] = [
    OpEntry("neg", 1...1, "-x") { try $0[0].negated() },
    OpEntry("exp", 1...1, "e^x") { try $0[0].exp() },
    OpEntry("log", 1...1, "natural logarithm") { try $0[0].log() },
    OpEntry("sqrt", 1...1, "square root") { try $0[0].sqrt() },
    OpEntry("abs", 1...1, "absolute value") { try $0[0].abs() },
    OpEntry("relu", 1...1, "max(x, 0)") { try $0[0].relu() },
    OpEntry("sigmoid", 1...1, "1 / (1 + e^-x)") { try $0[0].sigmoid() },
    OpEntry("tanh", 1...1, "hyperbolic tangent") { try $0[0].tanh() },
    OpEntry("gelu", 1...1, "x times the standard normal distribution of x") { try $0[0].gelu() },
    OpEntry("square", 1...1, "x * x") { try $0[0].squared() },
  ]

  private static let arithmetic: [OpEntry] = [
    binary("add", "a + b, or a + value", { try $0.adding($1) }) { x, value, _ in
      try x.adding(value)
    },
    binary("sub", "a - b, or a - value", { try $0.subtracting($1) }) { x, value, reverse in
      reverse ? try x.subtracted(from: value) : try x.subtracting(value)
    },
    binary("mul", "a * b, or a * value", { try $0.multiplied(by: $1) }) { x, value, _ in
      try x.multiplied(by: value)
    },
    binary("div", "a / b, or a / value", { try $0.divided(by: $1) }) { x, value, reverse in
      reverse ? try x.dividing(value) : try x.divided(by: value)
    },
    binary("pow", "a ^ b, or a ^ value", { try $0.raised(to: $1) }) { x, value, reverse in
      reverse ? try Tensor.scalar(value).raised(to: x) : try x.raised(to: value)
    },
    binary("maximum", "larger of a and b, or of a and value", { try $0.maximum($1) }) {
      x, value, _ in try x.clamped(min: value)
    },
    binary("minimum", "smaller of a and b, or of a and value", { try $0.minimum($1) }) {
      x, value, _ in try x.clamped(max: value)
    },
  ]

  private static let comparisons: [OpEntry] = [
    ("lt", Comparison.less, Comparison.greater), ("le", .lessOrEqual, .greaterOrEqual),
    ("gt", .greater, .less), ("ge", .greaterOrEqual, .lessOrEqual),
    ("eq", .equal, .equal), ("ne", .notEqual, .notEqual),
  ].map { name, comparison, mirrored in
    binary(
      name,
      "1 where \(comparison) holds between a and b (or value), else 0; integers are converted",
      { try $0.converted(to: .float32).compared(comparison, to: $1.converted(to: .float32)) }
    ) { x, value, reverse in
      try x.converted(to: .float32).compared(reverse ? mirrored : comparison, to: value)
    }
  }

  private static func binary(
    _ name: String, _ summary: String, _ tensors: @escaping (Tensor, Tensor) throws -> Tensor,
    scalar: @escaping (Tensor, Float, Bool) throws -> Tensor
  ) -> OpEntry {
    OpEntry(name, 1...2, ScalarOptions(), summary) { inputs, options in
      if inputs.count == 2 {
        if options.value != nil {
          throw KDSError.argument("\(name): takes a second tensor or a value, not both")
        }
        return options.reverse
          ? try tensors(inputs[1], inputs[0]) : try tensors(inputs[0], inputs[1])
      }
      guard let value = options.value else {
        throw KDSError.argument("\(name): needs a second tensor or the attribute \"value\"")
      }
      return try scalar(inputs[0], value, options.reverse)
    }
  }
}
