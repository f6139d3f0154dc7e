import KDSTensor

/// A float tensor from literals, row-major.
public func tensor(_ values: [Float], _ shape: [Int]) throws -> Tensor {
  try Tensor(values, shape: shape)
}

/// An int64 tensor from literals, row-major.
public func integers(_ values: [Int64], _ shape: [Int]) throws -> Tensor {
  try Tensor(values, shape: shape)
}

extension Tensor {
  /// The elements of an int64 tensor.
  public var integerValues: [Int64] { (0..<count).map { integers[$0] } }
}
