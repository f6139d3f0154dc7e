// Walking over a plane of a feature map: one image's pixels of one channel, or of one block of
// channels (nChw8c, nChw16c). Its `area * block` floats lie in a row and are taken 16 at a time.

/// Elements summed in single precision, per lane 256, before the sum goes on in double.
private let planeStretch = 4096

extension ChannelGeometry {
  /// Channel blocks of all images.
  public var planes: Int { images * blocks }
  /// Floats of one plane.
  public var planeSize: Int { area * block }
  /// Planes in one piece of a reduction: depends on sizes alone, so that sums do too.
  var planeChunk: Int { max(1, 16384 / max(1, planeSize)) }
}

/// The values of the pixels that elements `i ..< i + 16` of a plane belong to; i is a multiple of 16.
@inline(__always)
func pixelLanes(_ values: UnsafePointer<Float>, _ i: Int, _ block: Int) -> SIMD16<Float> {
  switch block {
  case 16: return SIMD16(repeating: values[i &>> 4])
  case 8:
    let first = i &>> 3
    return SIMD16(
      lowHalf: SIMD8(repeating: values[first]), highHalf: SIMD8(repeating: values[first &+ 1]))
  default: return load16(values + i)
  }
}

/// The values of the channels of 16 elements of plane `index`; 0 beyond the last channel.
@inline(__always)
func channelLanes(
  _ values: UnsafePointer<Float>, _ map: ChannelGeometry, plane index: Int, perImage: Bool = true
) -> SIMD16<Float> {
  let first = index % map.blocks * map.block
  let row = values + (perImage ? index / map.blocks * map.channels : 0) + first
  var lanes = SIMD16<Float>(repeating: 0)
  let present = min(map.block, map.channels - first)
  for lane in 0..<16 {
    let channel = lane % map.block
    if channel < present { lanes[lane] = row[channel] }
  }
  return lanes
}

/// Lane-wise sums by channel: every lane gets the sum over the lanes of its channel.
@inline(__always)
func sumByChannel(_ lanes: SIMD16<Float>, _ block: Int) -> SIMD16<Float> {
  switch block {
  case 16: return lanes
  case 8:
    let both = lanes.lowHalf + lanes.highHalf
    return SIMD16(lowHalf: both, highHalf: both)
  default: return SIMD16(repeating: lanes.sum())
  }
}

/// The last `count` < 16 elements from `pointer` on, `filler` in the other lanes.
@inline(__always)
func loadTail(
  _ pointer: UnsafePointer<Float>, _ count: Int, filler: Float = 0
) -> SIMD16<Float> {
  var lanes = SIMD16<Float>(repeating: filler)
  for lane in 0..<count { lanes[lane] = pointer[lane] }
  return lanes
}

/// Stores the first `count` lanes.
@inline(__always)
func storeTail(_ value: SIMD16<Float>, _ pointer: UnsafeMutablePointer<Float>, _ count: Int) {
  for lane in 0..<count { pointer[lane] = value[lane] }
}

/// Sum of `term` over the elements of a plane of `count` floats, doubles across stretches.
///
/// `term(i, rest)` handles elements `i ..< i + 16`, or the last `rest` < 16 of them when `rest` is
/// not 0: then lanes beyond must be 0. Give it a closure literal, which is inlined.
@inline(__always)
func sumPlane(_ count: Int, _ term: (_ i: Int, _ rest: Int) -> SIMD16<Float>) -> Double {
  var total = 0.0
  let whole = count - count % 16
  var start = 0
  while start < whole {
    let end = min(start + planeStretch, whole)
    var lanes = SIMD16<Float>(repeating: 0)
    while start < end {
      lanes += term(start, 0)
      start += 16
    }
    total += Double(lanes.sum())
  }
  if whole < count { total += Double(term(whole, count - whole).sum()) }
  return total
}

/// Elements `i ..< i + 16` of a plane, or the last `rest` of them and zeros.
@inline(__always)
func planeLanes(_ plane: UnsafePointer<Float>, _ i: Int, _ rest: Int) -> SIMD16<Float> {
  rest == 0 ? load16(plane + i) : loadTail(plane + i, rest)
}

/// The pixels' values of elements `i ..< i + 16`, or of the last `rest` of them and zeros.
@inline(__always)
func pixelLanes(
  _ values: UnsafePointer<Float>, _ i: Int, _ rest: Int, _ block: Int
) -> SIMD16<Float> {
  if rest == 0 { return pixelLanes(values, i, block) }
  var lanes = SIMD16<Float>(repeating: 0)
  for lane in 0..<rest { lanes[lane] = values[(i + lane) / block] }
  return lanes
}

/// Writes elements `i ..< i + 16` of a plane, or the last `rest` of them.
@inline(__always)
func storePlane(
  _ value: SIMD16<Float>, _ plane: UnsafeMutablePointer<Float>, _ i: Int, _ rest: Int
) {
  if rest == 0 { store16(value, plane + i) } else { storeTail(value, plane + i, rest) }
}

/// Runs `body(i, rest)` over a plane, as `sumPlane` does.
@inline(__always)
func eachOfPlane(_ count: Int, _ body: (_ i: Int, _ rest: Int) -> Void) {
  let whole = count - count % 16
  var i = 0
  while i < whole {
    body(i, 0)
    i += 16
  }
  if whole < count { body(whole, count - whole) }
}

/// The lanes with zeros from lane `first` on.
@inline(__always)
func cleared(_ lanes: SIMD16<Float>, from first: Int) -> SIMD16<Float> {
  var result = lanes
  for lane in first..<16 { result[lane] = 0 }
  return result
}

/// Writes sums by lane of plane `index` as out[n, c], lanes of one channel added up.
@inline(__always)
func storeChannels(
  _ lanes: SIMD16<Double>, _ map: ChannelGeometry, _ index: Int,
  _ out: UnsafeMutablePointer<Float>
) {
  let (image, first) = (index / map.blocks, index % map.blocks * map.block)
  for channel in 0..<min(map.block, map.channels - first) {
    var sum = 0.0
    for lane in stride(from: channel, to: 16, by: map.block) { sum += lanes[lane] }
    out[image * map.channels + first + channel] = Float(sum)
  }
}
