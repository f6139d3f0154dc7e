import KDSKernels

/// A linear layer in bfloat16, as a 1×1 convolution whose pixels are the rows: NHWC is row-major then,
/// and oneDNN's convolutions use the processor's matrix units in all three passes.
struct HalfLinear {
  private let input, weight: Tensor
  private let bias: Tensor?
  private let relu: Bool
  private let rows, inputs, outputs: Int

  /// Whether it pays. Narrow results, such as classes and boxes, stay in float32.
  static func suits(_ rows: Int, _ inputs: Int, _ outputs: Int) -> Bool {
    rows >= 16 && inputs >= 64 && outputs >= 128
  }

  init(_ input: Tensor, _ weight: Tensor, _ bias: Tensor?, _ activation: Activation) {
    (self.input, self.weight, self.bias) = (input, weight, bias)
    relu = activation == .relu
    (rows, inputs, outputs) = (input.shape[0], input.shape[1], weight.shape[0])
  }

  func callAsFunction() throws -> Tensor {
    // Counts of regions change from step to step: steady sizes keep the number of primitives small.
    let pixels = steadyCount(rows)
    let geometry = try ConvolutionGeometry(
      [1, inputs, 1, pixels], [outputs, inputs, 1, 1], bias?.shape, ConvolutionOptions(),
      name: "linear", half: true)
    let source = try packed(input, pixels)
    let tracked = Tape.tracks([input, weight, bias])
    let result = try unpacked(
      geometry.forward(source, .own(weight), bias, relu: relu, training: tracked), outputs)
    guard tracked else { return result }
    let view = result.detachedView()
    let (wantsInput, wantsWeight) = (input.isTracked, weight.isTracked)
    let wantsBias = bias?.isTracked ?? false
    let inputs = [input, weight] + (bias.map { [$0] } ?? [])
    return Tape.record(result, "linear", inputs) { [weight, relu] incoming in
      var gradient = incoming
      if relu {
        gradient = try Tensor(uninitialized: incoming.shape)
        Kernels.reluBackward(
          output: view.floats, gradient: incoming.floats, gradient.floats, gradient.count)
      }
      let half = try packed(gradient, pixels)
      let toInput =
        wantsInput ? try unpacked(geometry.backwardData(half, .own(weight)), self.inputs) : nil
      guard wantsWeight || wantsBias else { return [toInput, nil, nil] }
      let (toWeight, toBias) = try geometry.backwardWeights(source, half, bias: wantsBias)
      return [toInput, wantsWeight ? try toWeight.reshaped(weight.shape) : nil, toBias]
    }
  }

  /// (R, C) as bfloat16 pixels, filled up with zeros.
  private func packed(_ matrix: Tensor, _ pixels: Int) throws -> Tensor {
    let columns = matrix.shape[1]
    let result = try Tensor(uninitialized: [1, columns, 1, pixels], layout: .half)
    Kernels.narrowed(matrix.floats, result.halves, rows * columns)
    (result.halves + rows * columns).update(repeating: 0, count: (pixels - rows) * columns)
    return result
  }

  /// The first rows of bfloat16 pixels as (R, C).
  private func unpacked(_ half: Tensor, _ columns: Int) throws -> Tensor {
    let result = try Tensor(uninitialized: [rows, columns])
    Kernels.widened(half.halves, result.floats, rows * columns)
    return result
  }
}

/// The next of eight sizes per octave: what varies from step to step then meets few sizes.
public func steadyCount(_ count: Int) -> Int {
  if count <= 16 { return count }
  let step = max(1, 1 << (Int.bitWidth - 1 - count.leadingZeroBitCount - 3))
  return (count + step - 1) / step * step
}
