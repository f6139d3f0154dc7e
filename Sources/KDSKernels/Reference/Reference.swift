/// Naive versions of the kernels: plain loops over arrays, straight from the definitions, sums in
/// double precision. They are the oracles of the tests and are not made fast.
///
/// Arrays are plain NCHW or row-major. Index arithmetic is written out on purpose.
public enum Reference {}

extension Reference {
  /// e^x by libm.
  public static func exp(_ x: [Float]) -> [Float] { x.map { Float(exponential(Double($0))) } }

  /// Softmax of each row of (rows, columns).
  public static func softmax(_ x: [Float], rows: Int, columns: Int) -> [Float] {
    logSoftmaxDouble(x, rows: rows, columns: columns).map { Float(exponential($0)) }
  }

  /// log softmax of each row of (rows, columns).
  public static func logSoftmax(_ x: [Float], rows: Int, columns: Int) -> [Float] {
    logSoftmaxDouble(x, rows: rows, columns: columns).map(Float.init)
  }

  private static func logSoftmaxDouble(_ x: [Float], rows: Int, columns: Int) -> [Double] {
    var out: [Double] = []
    for row in 0..<rows {
      let values = x[row * columns..<(row + 1) * columns].map(Double.init)
      let peak = values.max() ?? 0
      var total = 0.0
      for value in values { total += exponential(value - peak) }
      for value in values { out.append(value - peak - logarithm(total)) }
    }
    return out
  }

  /// y = x W^T + b with x (rows, inputs), W (outputs, inputs), b (outputs) or nil.
  public static func linear(
    _ x: [Float], _ weight: [Float], bias: [Float]?, rows: Int, inputs: Int, outputs: Int
  ) -> [Float] {
    var y = [Float](repeating: 0, count: rows * outputs)
    for row in 0..<rows {
      for output in 0..<outputs {
        var total = Double(bias?[output] ?? 0)
        for input in 0..<inputs {
          total += Double(x[row * inputs + input]) * Double(weight[output * inputs + input])
        }
        y[row * outputs + output] = Float(total)
      }
    }
    return y
  }

  /// Gradients of `linear` by x, W and b.
  public static func linearBackward(
    _ x: [Float], _ weight: [Float], gradOutput: [Float], rows: Int, inputs: Int, outputs: Int
  ) -> (input: [Float], weight: [Float], bias: [Float]) {
    var gradInput = [Double](repeating: 0, count: x.count)
    var gradWeight = [Double](repeating: 0, count: weight.count)
    var gradBias = [Double](repeating: 0, count: outputs)
    for row in 0..<rows {
      for output in 0..<outputs {
        let g = Double(gradOutput[row * outputs + output])
        gradBias[output] += g
        for input in 0..<inputs {
          gradInput[row * inputs + input] += g * Double(weight[output * inputs + input])
          gradWeight[output * inputs + input] += g * Double(x[row * inputs + input])
        }
      }
    }
    return (gradInput.map(Float.init), gradWeight.map(Float.init), gradBias.map(Float.init))
  }
}
