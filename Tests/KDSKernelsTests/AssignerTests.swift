import KDSKernels
import Testing

/// Scenes that assigners are held against plain versions on.
private struct Scene {
  var anchors: [Float] = []
  var levels = [0]
  var boxes: [Float] = []

  /// Three levels of square anchors; boxes of many sizes, some across the border.
  init(seed: UInt64, boxes count: Int, size: Float, perStride: Float = 2.5) {
    for stride in [8, 16, 32] {
      let half = Float(stride) * perStride / 2
      for y in 0..<96 / stride {
        for x in 0..<96 / stride {
          let (cx, cy) = (Float(x * stride), Float(y * stride))
          anchors += [cx - half, cy - half, cx + half, cy + half]
        }
      }
      levels.append(anchors.count / 4)
    }
    var random = CounterRandom(seed: seed)
    for _ in 0..<count {
      let (x, y) = (random.uniform(-4, 90), random.uniform(-4, 90))
      boxes += [x, y, x + random.uniform(2, size), y + random.uniform(2, size)]
    }
  }

  func atss(_ perLevel: Int) -> [Int32] {
    var matches = [Int32](repeating: 7, count: anchors.count / 4)
    Kernels.matchATSS(
      boxes: boxes, boxes.count / 4, anchors: anchors, levels: levels, perLevel: perLevel,
      matches: &matches)
    return matches
  }

  func centers(_ radius: Float) -> [Int32] {
    var matches = [Int32](repeating: 7, count: anchors.count / 4)
    Kernels.matchCenters(
      boxes: boxes, boxes.count / 4, anchors: anchors, levels: levels,
      rule: CenterRule(radius: radius), matches: &matches)
    return matches
  }
}

private func corners(_ values: [Float], _ row: Int) -> [Double] {
  (0..<4).map { Double(values[4 * row + $0]) }
}

/// Distances of an anchor's centre to the left, top, right and bottom of a box.
private func gaps(_ anchor: [Double], _ box: [Double]) -> [Double] {
  let (x, y) = ((anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2)
  return [x - box[0], y - box[1], box[2] - x, box[3] - y]
}

private func plainIoU(_ a: [Double], _ b: [Double]) -> Double {
  let inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
  return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
}

/// Algorithm 1 of Zhang et al. 2020, line by line, in double precision.
private func plainATSS(_ scene: Scene, _ perLevel: Int) -> [Int32] {
  let count = scene.anchors.count / 4
  var owner = [Int32](repeating: -1, count: count)
  var best = [Double](repeating: -1, count: count)
  for box in 0..<scene.boxes.count / 4 {
    let own = corners(scene.boxes, box)
    var candidates: [Int] = []
    for (first, end) in zip(scene.levels, scene.levels.dropFirst()) {
      var sorted: [(place: Int, distance: Double)] = []
      for anchor in first..<end {
        let a = corners(scene.anchors, anchor)
        let dx = a[0] + a[2] - own[0] - own[2]
        let dy = a[1] + a[3] - own[1] - own[3]
        sorted.append((anchor, dx * dx + dy * dy))
      }
      sorted.sort { ($0.distance, $0.place) < ($1.distance, $1.place) }
      candidates += sorted.prefix(perLevel).map { $0.place }
    }
    let overlaps = candidates.map { plainIoU(corners(scene.anchors, $0), own) }
    let mean = overlaps.reduce(0, +) / Double(overlaps.count)
    let variance =
      overlaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(overlaps.count - 1)
    for (anchor, overlap) in zip(candidates, overlaps)
    where overlap >= mean + variance.squareRoot() && overlap > best[anchor] {
      if gaps(corners(scene.anchors, anchor), own).min()! > 0.01 {
        (best[anchor], owner[anchor]) = (overlap, Int32(box))
      }
    }
  }
  return owner
}

/// torchvision's centre sampling, anchor by anchor, in double precision.
private func plainCenters(_ scene: Scene, _ radius: Double) -> [Int32] {
  (0..<scene.anchors.count / 4).map { anchor in
    let a = corners(scene.anchors, anchor)
    let size = a[2] - a[0]
    let low = anchor < scene.levels[1] ? 0 : 4 * size
    let high = anchor >= scene.levels[scene.levels.count - 2] ? Double.infinity : 8 * size
    var found: (Double, Int32) = (.infinity, -1)
    for box in 0..<scene.boxes.count / 4 {
      let own = corners(scene.boxes, box)
      let distances = gaps(a, own)
      let off = max(abs(distances[0] - distances[2]), abs(distances[1] - distances[3])) / 2
      let farthest = distances.max()!
      let area = (own[2] - own[0]) * (own[3] - own[1])
      if off < radius * size, distances.min()! > 0, farthest > low, farthest < high, area < found.0
      {
        found = (area, Int32(box))
      }
    }
    return found.1
  }
}

@Suite struct AssignerTests {
  @Test(arguments: [1, 4, 9, 500]) func adaptiveSelectionIsThePlainOne(perLevel: Int) {
    for seed in 1...6 as ClosedRange<UInt64> {
      let scene = Scene(seed: seed, boxes: 12, size: seed % 2 == 0 ? 20 : 80)
      let wanted = plainATSS(scene, perLevel)
      #expect(scene.atss(perLevel) == wanted)
      #expect(wanted.contains { $0 >= 0 })
    }
  }

  @Test func centreSamplingIsThePlainOne() {
    for seed in 1...6 as ClosedRange<UInt64> {
      // Small anchors, so that the ranges of all three levels matter.
      let scene = Scene(seed: seed, boxes: 12, size: 80, perStride: 0.5)
      for radius in [0.5, 1.5, 4] {
        let wanted = plainCenters(scene, radius)
        #expect(scene.centers(Float(radius)) == wanted)
        #expect(radius < 1 || wanted.contains { $0 >= 0 })
      }
    }
  }

  @Test func theNumberOfThreadsChangesNothing() {
    let before = Threads.count
    defer { Threads.count = before }
    let scene = Scene(seed: 3, boxes: 300, size: 60)
    Threads.count = 1
    let (adaptive, central) = (scene.atss(9), scene.centers(1.5))
    Threads.count = 2
    #expect(scene.atss(9) == adaptive && scene.centers(1.5) == central)
  }

  @Test func withoutBoxesAllIsBackground() {
    let scene = Scene(seed: 1, boxes: 0, size: 10)
    #expect(scene.atss(9).allSatisfy { $0 == Kernels.matchNegative })
    #expect(scene.centers(1.5).allSatisfy { $0 == Kernels.matchNegative })
  }

  /// The statistics of one candidate are its own IoU: it is positive if its centre is inside.
  @Test func oneAnchorAlone() {
    var scene = Scene(seed: 1, boxes: 0, size: 10)
    (scene.anchors, scene.levels) = ([0, 0, 10, 10], [0, 1])
    scene.boxes = [4, 4, 30, 30]
    #expect(scene.atss(9) == [0])
    scene.boxes = [5, 4, 30, 30]
    #expect(scene.atss(9) == [-1])
  }

  /// Two boxes claim one anchor: the larger IoU takes it in one rule, the smaller box in the other.
  @Test func contestedAnchors() {
    var scene = Scene(seed: 1, boxes: 0, size: 10)
    (scene.anchors, scene.levels) = ([0, 0, 20, 20], [0, 1])
    scene.boxes = [0, 0, 21, 21, 8, 8, 12, 12]
    #expect(scene.atss(1) == [0])
    #expect(scene.centers(1.5) == [1])
    scene.boxes = [0, 0, 20, 20, 0, 0, 20, 20]
    #expect(scene.atss(1) == [0] && scene.centers(1.5) == [0])
  }

  /// Both limits of a level are exclusive, as are the sides of a box and the radius.
  @Test func limitsAreExclusive() {
    var scene = Scene(seed: 1, boxes: 0, size: 10)
    // Sizes 2, 4 and 8 at one place, which lies 16 from the farthest side.
    (scene.anchors, scene.levels) = (
      [19, 19, 21, 21, 18, 18, 22, 22, 16, 16, 24, 24], [0, 1, 2, 3]
    )
    scene.boxes = [4, 18, 22, 22]
    // 16 = 8 · 2 = 4 · 4, and the centre lies 7 away.
    #expect(scene.centers(10) == [-1, -1, -1])
    scene.boxes = [3.5, 18, 22, 22]
    #expect(scene.centers(10) == [-1, 0, -1])
    scene.boxes = [20, 18, 37, 22]
    #expect(scene.centers(10) == [-1, -1, -1])
  }
}
