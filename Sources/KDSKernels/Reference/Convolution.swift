/// Sizes of a two-dimensional convolution. Weights are (outputs, inputs / groups, kernelH, kernelW).
public struct ConvolutionShape {
  public var images, inputs, height, width, outputs: Int
  public var kernelHeight, kernelWidth: Int
  public var strideHeight = 1
  public var strideWidth = 1
  public var paddingHeight = 0
  public var paddingWidth = 0
  public var dilationHeight = 1
  public var dilationWidth = 1
  public var groups = 1

  public init(
    images: Int, inputs: Int, height: Int, width: Int, outputs: Int, kernelHeight: Int,
    kernelWidth: Int
  ) {
    self.images = images
    self.inputs = inputs
    self.height = height
    self.width = width
    self.outputs = outputs
    self.kernelHeight = kernelHeight
    self.kernelWidth = kernelWidth
  }

  /// Square kernel, stride, padding and dilation.
  public init(
    images: Int, inputs: Int, height: Int, width: Int, outputs: Int, kernel: Int, stride: Int = 1,
    padding: Int = 0, dilation: Int = 1, groups: Int = 1
  ) {
    self.init(
      images: images, inputs: inputs, height: height, width: width, outputs: outputs,
      kernelHeight: kernel, kernelWidth: kernel)
    (strideHeight, strideWidth) = (stride, stride)
    (paddingHeight, paddingWidth) = (padding, padding)
    (dilationHeight, dilationWidth) = (dilation, dilation)
    self.groups = groups
  }

  public var outHeight: Int {
    (height + 2 * paddingHeight - dilationHeight * (kernelHeight - 1) - 1) / strideHeight + 1
  }
  public var outWidth: Int {
    (width + 2 * paddingWidth - dilationWidth * (kernelWidth - 1) - 1) / strideWidth + 1
  }
  public var inputCount: Int { images * inputs * height * width }
  public var outputCount: Int { images * outputs * outHeight * outWidth }
  public var weightCount: Int { outputs * (inputs / groups) * kernelHeight * kernelWidth }
}

extension Reference {
  /// Calls `body(input index, weight index, output index)` for every product of the convolution.
  private static func forEachProduct(
    _ s: ConvolutionShape, _ body: (_ input: Int, _ weight: Int, _ output: Int) -> Void
  ) {
    let (perGroupIn, perGroupOut) = (s.inputs / s.groups, s.outputs / s.groups)
    for n in 0..<s.images {
      for k in 0..<s.outputs {
        for oy in 0..<s.outHeight {
          for ox in 0..<s.outWidth {
            let output = ((n * s.outputs + k) * s.outHeight + oy) * s.outWidth + ox
            for c in 0..<perGroupIn {
              let channel = k / perGroupOut * perGroupIn + c
              for ky in 0..<s.kernelHeight {
                let y = oy * s.strideHeight - s.paddingHeight + ky * s.dilationHeight
                if y < 0 || y >= s.height { continue }
                for kx in 0..<s.kernelWidth {
                  let x = ox * s.strideWidth - s.paddingWidth + kx * s.dilationWidth
                  if x < 0 || x >= s.width { continue }
                  let input = ((n * s.inputs + channel) * s.height + y) * s.width + x
                  let weight = ((k * perGroupIn + c) * s.kernelHeight + ky) * s.kernelWidth + kx
                  body(input, weight, output)
                }
              }
            }
          }
        }
      }
    }
  }

  /// Cross-correlation of `input` with `weight`, plus `bias` (outputs) or nothing.
  public static func conv2d(
    _ input: [Float], _ weight: [Float], bias: [Float]? = nil, _ shape: ConvolutionShape
  ) -> [Float] {
    var out = [Double](repeating: 0, count: shape.outputCount)
    if let bias {
      let area = shape.outHeight * shape.outWidth
      for index in out.indices { out[index] = Double(bias[index / area % shape.outputs]) }
    }
    forEachProduct(shape) { i, w, o in out[o] += Double(input[i]) * Double(weight[w]) }
    return out.map(Float.init)
  }

  /// Gradient of `conv2d` by its input; with the roles of the shapes swapped, a transposed
  /// convolution.
  public static func conv2dBackwardData(
    gradOutput: [Float], _ weight: [Float], _ shape: ConvolutionShape
  ) -> [Float] {
    var out = [Double](repeating: 0, count: shape.inputCount)
    forEachProduct(shape) { i, w, o in out[i] += Double(gradOutput[o]) * Double(weight[w]) }
    return out.map(Float.init)
  }

  /// Gradients of `conv2d` by its weights and its bias.
  public static func conv2dBackwardWeights(
    _ input: [Float], gradOutput: [Float], _ shape: ConvolutionShape
  ) -> (weight: [Float], bias: [Float]) {
    var out = [Double](repeating: 0, count: shape.weightCount)
    forEachProduct(shape) { i, w, o in out[w] += Double(gradOutput[o]) * Double(input[i]) }
    var bias = [Double](repeating: 0, count: shape.outputs)
    let area = shape.outHeight * shape.outWidth
    for index in gradOutput.indices {
      bias[index / area % shape.outputs] += Double(gradOutput[index])
    }
    return (out.map(Float.init), bias.map(Float.init))
  }

  /// Transposed convolution: `shape` is that of the convolution it transposes, so `input` is
  /// (images, shape.outputs, shape.outHeight, shape.outWidth) and the result
  /// (images, shape.inputs, shape.height, shape.width). `bias` is (shape.inputs) or nil.
  ///
  /// The weights are (shape.outputs, shape.inputs / groups, kH, kW): the layout of
  /// `torch.nn.ConvTranspose2d`, whose input channels come first.
  public static func convTranspose2d(
    _ input: [Float], _ weight: [Float], bias: [Float]? = nil, _ shape: ConvolutionShape
  ) -> [Float] {
    var out = conv2dBackwardData(gradOutput: input, weight, shape)
    if let bias {
      let area = shape.height * shape.width
      for index in out.indices { out[index] += bias[index / area % shape.inputs] }
    }
    return out
  }
}
