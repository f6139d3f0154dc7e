#if canImport(Glibc)
  import Glibc
#endif

/// Boxes (n, 4) as x1 y1 x2 y2 turned into four contiguous columns and their areas, so that a loop
/// over boxes vectorises. Columns are padded to a multiple of 16 with boxes that overlap nothing.
struct BoxColumns {
  let count: Int
  let capacity: Int
  private let storage: UnsafeMutablePointer<Float>

  var x1: UnsafeMutablePointer<Float> { storage }
  var y1: UnsafeMutablePointer<Float> { storage + capacity }
  var x2: UnsafeMutablePointer<Float> { storage + 2 * capacity }
  var y2: UnsafeMutablePointer<Float> { storage + 3 * capacity }
  var area: UnsafeMutablePointer<Float> { storage + 4 * capacity }

  /// Floats of scratch memory needed for `n` boxes.
  static func scratch(_ n: Int) -> Int { 5 * ((n + 15) / 16 * 16) }

  /// Fills `scratch` from `boxes`; `extent` is 1 under the inclusive-pixel convention, else 0.
  init(_ boxes: UnsafePointer<Float>, _ n: Int, extent: Float, scratch: UnsafeMutablePointer<Float>)
  {
    count = n
    capacity = (n + 15) / 16 * 16
    storage = scratch
    for i in 0..<n { set(i, boxes + 4 * i, extent: extent) }
    for i in n..<capacity { setEmpty(i) }
  }

  /// An empty set of columns with room for `capacity` boxes, a multiple of 16.
  init(capacity: Int, scratch: UnsafeMutablePointer<Float>) {
    count = 0
    self.capacity = capacity
    storage = scratch
  }

  @inline(__always)
  func set(_ i: Int, _ box: UnsafePointer<Float>, extent: Float) {
    x1[i] = box[0]
    y1[i] = box[1]
    x2[i] = box[2]
    y2[i] = box[3]
    area[i] = (box[2] - box[0] + extent) * (box[3] - box[1] + extent)
  }

  @inline(__always)
  func setEmpty(_ i: Int) {
    x1[i] = .greatestFiniteMagnitude
    y1[i] = .greatestFiniteMagnitude
    x2[i] = -.greatestFiniteMagnitude
    y2[i] = -.greatestFiniteMagnitude
    area[i] = 0
  }
}

@inline(__always)
func larger(_ a: Float, _ b: Float) -> Float { a > b ? a : b }

@inline(__always)
func smaller(_ a: Float, _ b: Float) -> Float { a < b ? a : b }

extension Kernels {
  /// Pairwise IoU, out (n, m). Boxes are x1 y1 x2 y2. As `torchvision.ops.box_iou`: two boxes
  /// without area give NaN.
  /// - Parameter legacy: widths are x2 - x1 + 1 (inclusive pixels, as in py-faster-rcnn).
  public static func boxIoU(
    _ a: UnsafePointer<Float>, _ n: Int, _ b: UnsafePointer<Float>, _ m: Int,
    _ out: UnsafeMutablePointer<Float>, legacy: Bool = false
  ) {
    let extent: Float = legacy ? 1 : 0
    withUnsafeTemporaryAllocation(of: Float.self, capacity: BoxColumns.scratch(m) + 1) { buffer in
      let columns = BoxColumns(b, m, extent: extent, scratch: buffer.baseAddress!)
      let (x1, y1, x2, y2) = (columns.x1, columns.y1, columns.x2, columns.y2)
      let area = columns.area
      parallelFor(count: n, grain: max(1, 8192 / max(m, 1))) { range in
        for i in range {
          let (u1, v1, u2, v2) = (a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3])
          let own = (u2 - u1 + extent) * (v2 - v1 + extent)
          let row = out + i * m
          for j in 0..<m {
            let width = larger(smaller(u2, x2[j]) - larger(u1, x1[j]) + extent, 0)
            let height = larger(smaller(v2, y2[j]) - larger(v1, y1[j]) + extent, 0)
            let inter = width * height
            row[j] = inter / (own + area[j] - inter)
          }
        }
      }
    }
  }

  /// Pairwise generalised IoU, out (n, m): IoU - (enclosing area - union) / enclosing area
  /// (Rezatofighi et al., 2019; `torchvision.ops.generalized_box_iou`).
  public static func generalizedBoxIoU(
    _ a: UnsafePointer<Float>, _ n: Int, _ b: UnsafePointer<Float>, _ m: Int,
    _ out: UnsafeMutablePointer<Float>
  ) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: BoxColumns.scratch(m) + 1) { buffer in
      let columns = BoxColumns(b, m, extent: 0, scratch: buffer.baseAddress!)
      let (x1, y1, x2, y2) = (columns.x1, columns.y1, columns.x2, columns.y2)
      let area = columns.area
      parallelFor(count: n, grain: max(1, 4096 / max(m, 1))) { range in
        for i in range {
          let (u1, v1, u2, v2) = (a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3])
          let own = (u2 - u1) * (v2 - v1)
          let row = out + i * m
          for j in 0..<m {
            let width = larger(smaller(u2, x2[j]) - larger(u1, x1[j]), 0)
            let height = larger(smaller(v2, y2[j]) - larger(v1, y1[j]), 0)
            let inter = width * height
            let union = own + area[j] - inter
            let hullWidth = larger(larger(u2, x2[j]) - smaller(u1, x1[j]), 0)
            let hullHeight = larger(larger(v2, y2[j]) - smaller(v1, y1[j]), 0)
            let hull = hullWidth * hullHeight
            row[j] = inter / union - (hull - union) / hull
          }
        }
      }
    }
  }

  /// Limits boxes (n, 4) to the image, in place: x to 0...width, y to 0...height.
  /// - Parameter legacy: the largest coordinate is width - 1, height - 1.
  public static func clipBoxes(
    _ boxes: UnsafeMutablePointer<Float>, _ n: Int, width: Float, height: Float,
    legacy: Bool = false
  ) {
    let right = legacy ? width - 1 : width
    let bottom = legacy ? height - 1 : height
    for i in 0..<n {
      let box = boxes + 4 * i
      // `value > 0 ? value : 0` also sends NaN to 0, so that nothing behind meets it.
      box[0] = smaller(larger(box[0], 0), right)
      box[1] = smaller(larger(box[1], 0), bottom)
      box[2] = smaller(larger(box[2], 0), right)
      box[3] = smaller(larger(box[3], 0), bottom)
    }
  }

  /// Indices of boxes whose sides are both at least `minimum`; NaN boxes are left out.
  public static func largeBoxes(
    _ boxes: UnsafePointer<Float>, _ n: Int, minimum: Float, legacy: Bool = false
  ) -> [Int] {
    let extent: Float = legacy ? 1 : 0
    return (0..<n).filter { i in
      let box = boxes + 4 * i
      return box[2] - box[0] + extent >= minimum && box[3] - box[1] + extent >= minimum
    }
  }
}
