/// Namespace of all kernels: pointers in, pointers out, no allocation that outlives the call.
public enum Kernels {
  /// Below this many floats a second thread costs more than it brings.
  @inlinable public static var elementwiseGrain: Int { 16384 }
}

extension Kernels {
  /// out = a + b
  public static func add(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = a[index] + b[index] }
    }
  }

  /// out = a * b
  public static func multiply(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = a[index] * b[index] }
    }
  }

  /// out = factor * a
  public static func scale(
    _ a: UnsafePointer<Float>, by factor: Float, _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = factor * a[index] }
    }
  }

  /// out = max(a, 0); NaN stays NaN, so that a broken run shows.
  public static func relu(
    _ a: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range {
        let value = a[index]
        out[index] = value < 0 ? 0 : value
      }
    }
  }

  /// Gradient of ReLU from its output: out = gradient where output > 0, else 0.
  public static func reluBackward(
    output: UnsafePointer<Float>, gradient: UnsafePointer<Float>,
    _ out: UnsafeMutablePointer<Float>, _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range { out[index] = output[index] > 0 ? gradient[index] : 0 }
    }
  }

  /// out = max(a + b, 0): the end of a residual block.
  public static func addReLU(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>,
    _ count: Int
  ) {
    parallelFor(count: count, grain: elementwiseGrain) { range in
      for index in range {
        let value = a[index] + b[index]
        out[index] = value < 0 ? 0 : value
      }
    }
  }
}
