import COneDNN

/// How the elements of a tensor lie in memory.
public enum Layout: Hashable, CustomStringConvertible {
  /// Row-major, no gaps.
  case plain
  /// oneDNN's nChw8c / nChw16c: (N, C/block, H, W, block), channels padded to the block **with zeros**.
  /// Only for rank 4. Whoever writes such a tensor keeps the padding zero.
  case blocked(Int)
  /// (N, H, W, C) in bfloat16, the form in which processors with bfloat16 instructions compute. The
  /// tensor is still a float tensor: any operation without a form of its own converts it. Rank 4 only.
  case half

  /// The block that oneDNN's kernels want on this processor.
  public static let preferredBlock = Int(kds_dnn_preferred_block())
  /// The blocked layout of this processor.
  public static let preferred = Layout.blocked(preferredBlock)

  /// Channels per block; 1 for plain.
  public var block: Int {
    switch self {
    case .plain, .half: return 1
    case .blocked(let block): return block
    }
  }

  public var description: String {
    switch self {
    case .plain: return "plain"
    case .blocked(let block): return "nChw\(block)c"
    case .half: return "nhwc bfloat16"
    }
  }

  /// Elements in memory for a tensor of this shape, padding included.
  public func elementCount(_ shape: [Int]) -> Int {
    switch self {
    case .plain, .half: return shape.reduce(1, *)
    case .blocked(let block):
      return shape[0] * ((shape[1] + block - 1) / block * block) * shape[2] * shape[3]
    }
  }
}

extension Layout {
  /// Bytes of a tensor of this shape.
  public func byteCount(_ shape: [Int], _ dtype: DType) -> Int {
    elementCount(shape) * (self == .half ? MemoryLayout<UInt16>.size : dtype.size)
  }
}

/// Element types. Learning happens in `float32`; `int64` holds labels and indices.
public enum DType: Int32 {
  case float32 = 0
  case int64 = 1

  public var size: Int { self == .float32 ? 4 : 8 }
}
