#if canImport(Glibc)
  import Glibc
#endif

/// How regions are cut into cells: the arguments of RoIAlign and RoIPool.
public struct RoIGrid {
  /// Output cells per region.
  public let height, width: Int
  /// Map cells per image pixel, 1 / stride.
  public let spatialScale: Float
  /// Samples per cell and axis; 0 or less takes ceil(region size / output size). RoIAlign only.
  public let samplingRatio: Int
  /// Shifts coordinates by half a map cell (the corrected RoIAlign). RoIAlign only.
  public let aligned: Bool

  public init(
    height: Int, width: Int, spatialScale: Float, samplingRatio: Int = 0, aligned: Bool = false
  ) {
    self.height = height
    self.width = width
    self.spatialScale = spatialScale
    self.samplingRatio = samplingRatio
    self.aligned = aligned
  }

  var cells: Int { height * width }
}

/// Bilinear weights of one axis: for each output row (or column) of each region, which input rows it
/// reads and how much of each.
///
/// RoIAlign samples a product grid and the bilinear weights are products too, the zero weight of
/// samples outside included, so the two axes separate; samples that share an input row are merged.
struct AxisTaps {
  /// First tap of each output row, and the end.
  private(set) var starts: [Int32] = [0]
  private(set) var indices: [Int32] = []
  private(set) var weights: [Float] = []

  /// Adds the `cells` output rows of a region that spans `start`..<`start + length` on an axis of
  /// `extent` input cells.
  mutating func append(start: Float, length: Float, cells: Int, extent: Int, samplingRatio: Int) {
    let bin = length / Float(cells)
    let wanted = samplingRatio > 0 ? Float(samplingRatio) : bin.rounded(.up)
    // Written so that NaN and infinities, which a wild `spatialScale` can make, read nothing.
    if !(wanted >= 1 && wanted < 1e9 && abs(start) < 1e18 && abs(bin) < 1e18 && extent > 0) {
      appendEmpty(cells)
      return
    }
    for cell in 0..<cells {
      let origin = start + Float(cell) * bin
      let (first, last) = sampleRange(origin, bin / wanted, wanted, extent)
      var sample = first
      while sample <= last {
        addSample(origin + (Float(sample) + 0.5) * bin / wanted, extent, 1 / wanted)
        sample += 1
      }
      starts.append(Int32(indices.count))
    }
  }

  /// Adds `cells` output rows that read nothing.
  mutating func appendEmpty(_ cells: Int) {
    for _ in 0..<cells { starts.append(Int32(indices.count)) }
  }

  /// The samples that can fall on the map, so that a huge region costs no more than the map.
  private func sampleRange(
    _ origin: Float, _ pitch: Float, _ wanted: Float, _ extent: Int
  ) -> (first: Int, last: Int) {
    if !(abs(pitch) > 1e-12) { return (0, Int(wanted) - 1) }
    let a = (-2 - origin) / pitch - 1
    let b = (Float(extent) + 1 - origin) / pitch + 1
    let first = min(max(min(a, b), 0), wanted)
    let last = min(max(max(a, b), -1), wanted - 1)
    return (Int(first), Int(last.rounded(.up)))
  }

  /// One sample at coordinate `y`: nothing outside -1...extent, clamped to the border cells inside.
  private mutating func addSample(_ y: Float, _ extent: Int, _ weight: Float) {
    if !(y >= -1 && y <= Float(extent)) { return }
    let position = y > 0 ? y : 0
    let low = Int32(position)
    let final = Int32(extent - 1)
    if low >= final {
      add(final, weight)
    } else {
      let fraction = position - Float(low)
      add(low, weight * (1 - fraction))
      add(low + 1, weight * fraction)
    }
  }

  /// Merges with one of the last two taps of the same output row when it reads the same input row.
  private mutating func add(_ index: Int32, _ weight: Float) {
    let count = indices.count
    let floor = Int(starts[starts.count - 1])
    for back in 1...2 where count - back >= floor && indices[count - back] == index {
      weights[count - back] += weight
      return
    }
    indices.append(index)
    weights.append(weight)
  }
}

/// Regions prepared for RoIAlign: image of each and the taps of both axes.
struct PreparedRegions {
  let count: Int
  /// Image of each region; -1 for a region that reads nothing.
  private(set) var images: [Int32] = []
  private(set) var rows = AxisTaps()
  private(set) var columns = AxisTaps()

  /// `rois` is (count, 5): image, x1, y1, x2, y2 in image pixels. Regions with a non-finite or
  /// absurd (above 1e8) coordinate, or an image that does not exist, read nothing.
  init(_ rois: UnsafePointer<Float>, _ count: Int, grid: RoIGrid, map: MapGeometry) {
    self.count = count
    let offset: Float = grid.aligned ? 0.5 : 0
    for index in 0..<count {
      let roi = rois + 5 * index
      let image = regionImage(roi, map.images)
      images.append(image)
      if image < 0 {
        rows.appendEmpty(grid.height)
        columns.appendEmpty(grid.width)
        continue
      }
      let x = roi[1] * grid.spatialScale - offset
      let y = roi[2] * grid.spatialScale - offset
      var width = roi[3] * grid.spatialScale - offset - x
      var height = roi[4] * grid.spatialScale - offset - y
      if !grid.aligned {
        width = max(width, 1)
        height = max(height, 1)
      }
      columns.append(
        start: x, length: width, cells: grid.width, extent: map.width,
        samplingRatio: grid.samplingRatio)
      rows.append(
        start: y, length: height, cells: grid.height, extent: map.height,
        samplingRatio: grid.samplingRatio)
    }
  }
}

/// Image index of a region, or -1 when the region cannot be read.
func regionImage(_ roi: UnsafePointer<Float>, _ images: Int) -> Int32 {
  for k in 1..<5 where !(abs(roi[k]) <= 1e8) { return -1 }
  if !(roi[0] >= 0 && roi[0] < Float(images)) { return -1 }
  return Int32(roi[0])
}
