import KDSKernels
import Testing

/// Channels of a plain array in the blocked layout, and back.
func blocked(_ x: [Float], _ map: MapGeometry) -> [Float] {
  if map.block == 1 { return x }
  var out = [Float](repeating: .nan, count: map.size)
  Kernels.blockChannels(
    x, &out, images: map.images, channels: map.channels, area: map.height * map.width,
    block: map.block)
  return out
}

func unblocked(_ x: [Float], _ map: MapGeometry) -> [Float] {
  if map.block == 1 { return x }
  let area = map.height * map.width
  var out = [Float](repeating: .nan, count: map.images * map.channels * area)
  Kernels.unblockChannels(
    x, &out, images: map.images, channels: map.channels, area: area, block: map.block)
  return out
}

/// Whether the channels that only fill the last block are all zero.
func paddingIsZero(_ x: [Float], _ map: MapGeometry) -> Bool {
  for index in x.indices {
    let lane = index % map.block
    let group = index / map.plane % map.groups
    if group * map.block + lane >= map.channels && x[index] != 0 { return false }
  }
  return true
}

@Suite struct RegionTests {
  /// Channel counts below, at and above the blocks; maps of odd sizes.
  static let maps: [MapGeometry] = [
    (1, 1), (3, 1), (9, 1), (20, 1), (8, 8), (11, 8), (16, 16), (19, 16),
  ].map { MapGeometry(images: 2, channels: $0.0, height: 9, width: 13, block: $0.1) }

  static let grids: [RoIGrid] = [
    RoIGrid(height: 3, width: 4, spatialScale: 0.25, samplingRatio: 2, aligned: true),
    RoIGrid(height: 3, width: 4, spatialScale: 0.25, samplingRatio: 2, aligned: false),
    RoIGrid(height: 2, width: 5, spatialScale: 0.5, samplingRatio: 0, aligned: true),
    RoIGrid(height: 7, width: 7, spatialScale: 0.25, samplingRatio: 0, aligned: false),
  ]

  /// Regions inside, across the border, outside, without area, inverted and far too large.
  static let rois: [Float] = [
    0, 4, 4, 20, 20, 1, -7.3, -5, 17, 11, 1, 30, 20, 80, 60, 0, 200, 200, 300, 300,
    1, 10, 10, 10, 10, 0, 20, 20, 8, 8, 0, -400, -300, 500, 400, 1, 3.7, 8.1, 41.9, 22.2,
  ]
  static let count = 8

  @Test(arguments: maps) func alignForwardAndBackward(_ map: MapGeometry) {
    let plain = MapGeometry(
      images: map.images, channels: map.channels, height: map.height, width: map.width)
    let x = randoms(plain.size, 1)
    for grid in Self.grids {
      let size = Self.count * map.channels * grid.height * grid.width
      var y = [Float](repeating: .nan, count: size)
      Kernels.roiAlignForward(
        blocked(x, map), map: map, rois: Self.rois, Self.count, grid: grid, output: &y)
      // Values below 1: a few roundings of the weights.
      #expect(error(y, Reference.roiAlign(x, map: plain, rois: Self.rois, grid: grid)) < 2e-6)
      let g = randoms(size, 2)
      var back = [Float](repeating: .nan, count: map.size)
      Kernels.roiAlignBackward(
        gradOutput: g, map: map, rois: Self.rois, Self.count, grid: grid, gradInput: &back)
      let expected = Reference.roiAlignBackward(
        gradOutput: g, map: plain, rois: Self.rois, grid: grid)
      #expect(error(unblocked(back, map), expected) < 1e-5)
      #expect(paddingIsZero(back, map))
    }
  }

  @Test(arguments: maps) func poolForwardAndBackward(_ map: MapGeometry) {
    let plain = MapGeometry(
      images: map.images, channels: map.channels, height: map.height, width: map.width)
    let x = randoms(plain.size, 1)
    for grid in Self.grids {
      let size = Self.count * map.channels * grid.height * grid.width
      var y = [Float](repeating: .nan, count: size)
      var places = [Int32](repeating: -9, count: size)
      Kernels.roiPoolForward(
        blocked(x, map), map: map, rois: Self.rois, Self.count, grid: grid, output: &y,
        argmax: &places)
      let expected = Reference.roiPool(x, map: plain, rois: Self.rois, grid: grid)
      #expect(y == expected.output && places == expected.argmax)
      let g = randoms(size, 2)
      var back = [Float](repeating: .nan, count: map.size)
      Kernels.roiPoolBackward(
        gradOutput: g, argmax: places, map: map, rois: Self.rois, Self.count, grid: grid,
        gradInput: &back)
      var scattered = [Float](repeating: 0, count: plain.size)
      let (cells, area) = (grid.height * grid.width, map.height * map.width)
      for index in g.indices where places[index] >= 0 {
        let (roi, channel) = (index / cells / map.channels, index / cells % map.channels)
        let plane = (Int(Self.rois[5 * roi]) * map.channels + channel) * area
        scattered[plane + Int(places[index])] += g[index]
      }
      #expect(unblocked(back, map) == scattered)
      #expect(paddingIsZero(back, map))
    }
  }

  @Test func positionSensitiveForwardAndBackward() {
    for grid in Self.grids {
      let map = MapGeometry(images: 2, channels: 3 * grid.height * grid.width, height: 9, width: 13)
      let x = randoms(map.size, 1)
      let size = Self.count * map.channels
      var y = [Float](repeating: .nan, count: size)
      Kernels.psRoIPoolForward(x, map: map, rois: Self.rois, Self.count, grid: grid, output: &y)
      // Means of at most 117 values below 1.
      #expect(error(y, Reference.psRoIPool(x, map: map, rois: Self.rois, grid: grid)) < 1e-6)
      let g = randoms(size, 2)
      var back = [Float](repeating: .nan, count: map.size)
      Kernels.psRoIPoolBackward(
        gradOutput: g, map: map, rois: Self.rois, Self.count, grid: grid, gradInput: &back)
      let expected = Reference.psRoIPoolBackward(
        gradOutput: g, map: map, rois: Self.rois, grid: grid)
      #expect(error(back, expected) < 1e-6)
    }
  }

  @Test func unreadableRegionsGiveZeros() {
    let map = MapGeometry(images: 1, channels: 16, height: 5, width: 5, block: 16)
    let x = [Float](repeating: 1, count: map.size)
    let plain = MapGeometry(images: 1, channels: 16, height: 5, width: 5)
    let flat = [Float](repeating: 1, count: plain.size)
    let huge = Float.greatestFiniteMagnitude
    let rois: [Float] = [
      0, .nan, 0, 4, 4, 0, 0, 0, .infinity, 4, 1, 0, 0, 4, 4, -1, 0, 0, 4, 4, .nan, 0, 0, 4, 4,
      0, -huge, 0, huge, 4, .infinity, 0, 0, 4, 4,
    ]
    for scale: Float in [1, 1e30, .infinity, .nan, 0, -1] {
      for ratio in [0, 2] {
        let grid = RoIGrid(
          height: 2, width: 2, spatialScale: scale, samplingRatio: ratio, aligned: true)
        var y = [Float](repeating: 9, count: 7 * 64)
        Kernels.roiAlignForward(x, map: map, rois: rois, 7, grid: grid, output: &y)
        #expect(y.allSatisfy { $0 == 0 })
        var places = [Int32](repeating: 9, count: 7 * 64)
        Kernels.roiPoolForward(
          x, map: map, rois: rois, 7, grid: grid, output: &y, argmax: &places)
        #expect(y.allSatisfy { $0 == 0 } && places.allSatisfy { $0 == -1 })
        Kernels.psRoIPoolForward(flat, map: plain, rois: rois, 5, grid: grid, output: &y)
        #expect(y[..<80].allSatisfy { $0 == 0 })
        // A readable region under a wild scale must not trap either.
        Kernels.roiAlignForward(x, map: map, rois: [0, 1, 1, 3, 3], 1, grid: grid, output: &y)
        Kernels.roiPoolForward(
          x, map: map, rois: [0, 1, 1, 3, 3], 1, grid: grid, output: &y, argmax: &places)
        Kernels.psRoIPoolForward(
          flat, map: plain, rois: [0, 1, 1, 3, 3], 1, grid: grid, output: &y)
      }
    }
  }

  @Test func regionsOfSeveralLevelsShareAnOutput() {
    let map = MapGeometry(images: 1, channels: 16, height: 9, width: 9, block: 16)
    let x = randoms(map.size, 3)
    let grid = RoIGrid(height: 2, width: 2, spatialScale: 1, samplingRatio: 2, aligned: true)
    let rois: [Float] = [0, 1, 1, 6, 6, 0, 2, 0, 8, 5]
    var whole = [Float](repeating: 0, count: 2 * 64)
    Kernels.roiAlignForward(x, map: map, rois: rois, 2, grid: grid, output: &whole)
    var parts = [Float](repeating: 0, count: 2 * 64)
    Kernels.roiAlignForward(
      x, map: map, rois: Array(rois[5...]), 1, grid: grid, output: &parts, outputRows: [1])
    Kernels.roiAlignForward(
      x, map: map, rois: Array(rois[..<5]), 1, grid: grid, output: &parts, outputRows: [0])
    #expect(parts == whole)
  }
}
