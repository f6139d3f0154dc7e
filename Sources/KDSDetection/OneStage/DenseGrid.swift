import KDSTensor

/// The anchors of one image, level after level.
public struct DenseGrid {
  /// (cells · anchors, 4) of every level, xyxy input pixels.
  public let levels: [[Float]]
  /// Nominal input pixels per cell of every level.
  public let strides: [Int]
  /// All of them, (M, 4).
  public let anchors: [Float]
  /// The first anchor of every level, and the end of the last.
  public let starts: [Int]

  public init(levels: [[Float]], strides: [Int]) {
    self.levels = levels
    self.strides = strides
    anchors = levels.flatMap { $0 }
    starts = levels.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.count / 4) }
  }

  /// M, anchors of one image.
  public var count: Int { anchors.count / 4 }

  /// The stride of the level that an anchor belongs to.
  func stride(of anchor: Int) -> Float {
    let level = starts.dropFirst().firstIndex { anchor < $0 } ?? strides.count
    return Float(strides[max(0, level - 1)])
  }
}

extension PyramidAnchors {
  /// The anchors of maps of these sizes, for an input of that size.
  public func grid(maps: [Size2], input: Size2) -> DenseGrid {
    DenseGrid(
      levels: maps.enumerated().map { grid(level: $0, map: $1, input: input) }, strides: strides)
  }

  /// The anchors of every level by its name, for an input of that size.
  func named(
    _ source: any FeatureSource, input: Size2
  ) throws -> [(level: String, boxes: [Float])] {
    let sizes = source.levelSizes(input)
    let total = sizes.reduce(0.0) { $0 + Double($1.height) * Double($1.width) * Double(count) }
    guard total <= Double(1 << 24) else {
      throw KDSError.argument(
        "anchors: an input of \(input) has \(Int(min(total, 1e18))) of them, more than 2^24")
    }
    return zip(source.levelDescriptions, sizes).enumerated().map { index, level in
      let name = level.0.name.split(separator: ".").last.map(String.init) ?? level.0.name
      return (name, grid(level: index, map: level.1, input: input))
    }
  }
}
