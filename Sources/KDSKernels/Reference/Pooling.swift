/// Sizes of a pooling over (planes, height, width), planes = images * channels.
public struct PoolingShape {
  public var planes, height, width, kernel, stride: Int
  public var padding = 0
  /// Rounds the output size up (Caffe) instead of down; a last window that would start in the
  /// padding behind the map is dropped.
  public var ceilMode = false

  public init(
    planes: Int, height: Int, width: Int, kernel: Int, stride: Int, padding: Int = 0,
    ceilMode: Bool = false
  ) {
    self.planes = planes
    self.height = height
    self.width = width
    self.kernel = kernel
    self.stride = stride
    self.padding = padding
    self.ceilMode = ceilMode
  }

  private func output(_ extent: Int) -> Int {
    let room = extent + 2 * padding - kernel
    var count = (ceilMode ? (room + stride - 1) / stride : room / stride) + 1
    if ceilMode && (count - 1) * stride >= extent + padding { count -= 1 }
    return count
  }

  public var outHeight: Int { output(height) }
  public var outWidth: Int { output(width) }
  public var outputCount: Int { planes * outHeight * outWidth }

  /// Map rows (or columns) of output position `index` on an axis, cut to the map.
  func window(_ index: Int, _ extent: Int) -> Range<Int> {
    let start = index * stride - padding
    return max(start, 0)..<max(max(start, 0), min(start + kernel, extent))
  }
}

extension Reference {
  /// Max pooling: values and the index y * width + x of the first maximum.
  public static func maxPool2d(
    _ input: [Float], _ shape: PoolingShape
  ) -> (output: [Float], argmax: [Int]) {
    var output: [Float] = []
    var argmax: [Int] = []
    for plane in 0..<shape.planes {
      for oy in 0..<shape.outHeight {
        for ox in 0..<shape.outWidth {
          var best = -Float.infinity
          var place = -1
          for y in shape.window(oy, shape.height) {
            for x in shape.window(ox, shape.width) {
              let value = input[(plane * shape.height + y) * shape.width + x]
              if place < 0 || value > best { (best, place) = (value, y * shape.width + x) }
            }
          }
          output.append(best)
          argmax.append(place)
        }
      }
    }
    return (output, argmax)
  }

  /// Gradient of `maxPool2d`.
  public static func maxPool2dBackward(
    gradOutput: [Float], argmax: [Int], _ shape: PoolingShape
  ) -> [Float] {
    var out = [Float](repeating: 0, count: shape.planes * shape.height * shape.width)
    let area = shape.outHeight * shape.outWidth
    for index in gradOutput.indices {
      out[index / area * shape.height * shape.width + argmax[index]] += gradOutput[index]
    }
    return out
  }

  /// Average pooling. The divisor counts padding when `includePadding`, as PyTorch's default does;
  /// cells beyond the padding (ceil mode) never count.
  public static func avgPool2d(
    _ input: [Float], _ shape: PoolingShape, includePadding: Bool = true
  ) -> [Float] {
    var output: [Float] = []
    for plane in 0..<shape.planes {
      for oy in 0..<shape.outHeight {
        for ox in 0..<shape.outWidth {
          let rows = shape.window(oy, shape.height)
          let columns = shape.window(ox, shape.width)
          var total = 0.0
          for y in rows {
            for x in columns {
              total += Double(input[(plane * shape.height + y) * shape.width + x])
            }
          }
          let divisor = divisor(oy, ox, rows, columns, shape, includePadding)
          output.append(Float(total / Double(divisor)))
        }
      }
    }
    return output
  }

  /// Gradient of `avgPool2d`.
  public static func avgPool2dBackward(
    gradOutput: [Float], _ shape: PoolingShape, includePadding: Bool = true
  ) -> [Float] {
    var out = [Double](repeating: 0, count: shape.planes * shape.height * shape.width)
    var index = 0
    for plane in 0..<shape.planes {
      for oy in 0..<shape.outHeight {
        for ox in 0..<shape.outWidth {
          let rows = shape.window(oy, shape.height)
          let columns = shape.window(ox, shape.width)
          let divisor = divisor(oy, ox, rows, columns, shape, includePadding)
          for y in rows {
            for x in columns {
              out[(plane * shape.height + y) * shape.width + x] +=
                Double(gradOutput[index]) / Double(divisor)
            }
          }
          index += 1
        }
      }
    }
    return out.map(Float.init)
  }

  private static func divisor(
    _ oy: Int, _ ox: Int, _ rows: Range<Int>, _ columns: Range<Int>, _ shape: PoolingShape,
    _ includePadding: Bool
  ) -> Int {
    if !includePadding { return rows.count * columns.count }
    func extent(_ index: Int, _ size: Int) -> Int {
      let start = index * shape.stride - shape.padding
      return min(start + shape.kernel, size + shape.padding) - start
    }
    return extent(oy, shape.height) * extent(ox, shape.width)
  }
}
