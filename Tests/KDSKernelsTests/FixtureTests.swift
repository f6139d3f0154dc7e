import KDSKernels
import KDSTestSupport
import Testing

/// Agreement with PyTorch and torchvision: 1e-5 relative to values of 1 and above, the float32
/// rounding of both sides over sums of up to a few hundred terms.
let golden: Float = 1e-5

@Suite struct RegionFixtures {
  let fixture: Fixture
  let map = MapGeometry(images: 2, channels: 9, height: 11, width: 14)

  init() throws { fixture = try Fixture("kernels") }

  @Test(arguments: 0..<4) func roiAlign(_ index: Int) throws {
    let name = "roi_align_\(index)"
    let grid = RoIGrid(
      height: 3, width: 4, spatialScale: 0.25,
      samplingRatio: Int(try fixture.number("\(name)/sampling_ratio")),
      aligned: try fixture.number("\(name)/aligned") != 0)
    let rois = try fixture.floats("rois")
    let x = try fixture.floats("\(name)/input")
    let g = try fixture.floats("\(name)/upstream")
    for block in [1, 8, 16] {
      let map = MapGeometry(images: 2, channels: 9, height: 11, width: 14, block: block)
      var y = g
      Kernels.roiAlignForward(
        blocked(x, map), map: map, rois: rois, rois.count / 5, grid: grid, output: &y)
      #expect(error(y, try fixture.floats("\(name)/output")) < golden)
      var back = [Float](repeating: .nan, count: map.size)
      Kernels.roiAlignBackward(
        gradOutput: g, map: map, rois: rois, rois.count / 5, grid: grid, gradInput: &back)
      #expect(error(unblocked(back, map), try fixture.floats("\(name)/grad_input")) < golden)
    }
  }

  @Test func roiPool() throws {
    let grid = RoIGrid(height: 3, width: 4, spatialScale: 0.25)
    let rois = try fixture.floats("rois")
    let x = try fixture.floats("roi_pool/input")
    let g = try fixture.floats("roi_pool/upstream")
    var (y, back) = (g, x)
    var places = [Int32](repeating: 0, count: y.count)
    Kernels.roiPoolForward(
      x, map: map, rois: rois, rois.count / 5, grid: grid, output: &y, argmax: &places)
    #expect(y == (try fixture.floats("roi_pool/output")))
    Kernels.roiPoolBackward(
      gradOutput: g, argmax: places, map: map, rois: rois, rois.count / 5, grid: grid,
      gradInput: &back)
    #expect(error(back, try fixture.floats("roi_pool/grad_input")) < golden)
  }
}

@Suite struct BoxFixtures {
  let fixture: Fixture

  init() throws { fixture = try Fixture("kernels") }

  @Test func overlaps() throws {
    let (a, b) = (try fixture.floats("box_iou/a"), try fixture.floats("box_iou/b"))
    var out = [Float](repeating: 0, count: a.count / 4 * b.count / 4)
    Kernels.boxIoU(a, a.count / 4, b, b.count / 4, &out)
    #expect(out == (try fixture.floats("box_iou/iou")))
    Kernels.generalizedBoxIoU(a, a.count / 4, b, b.count / 4, &out)
    #expect(error(out, try fixture.floats("box_iou/giou")) < 1e-6)
  }

  @Test(arguments: [30, 50, 70]) func suppression(_ percent: Int) throws {
    let boxes = try fixture.floats("nms/boxes")
    let scores = try fixture.floats("nms/scores")
    let labels = try fixture.integers("nms/labels")
    let threshold = Float(percent) / 100
    let kept = Kernels.nms(boxes: boxes, scores: scores, scores.count, threshold: threshold)
    #expect(kept.map(Int64.init) == (try fixture.integers("nms/keep_\(percent)")))
    let byLabel = Kernels.batchedNMS(
      boxes: boxes, scores: scores, labels: labels, scores.count, threshold: threshold)
    #expect(byLabel.map(Int64.init) == (try fixture.integers("nms/batched_\(percent)")))
  }

  @Test func coder() throws {
    let anchors = try fixture.floats("box_coder/anchors")
    let n = anchors.count / 4
    let weights = SIMD4<Float>(10, 10, 5, 5)
    var codes = anchors
    Kernels.encodeBoxes(
      try fixture.floats("box_coder/boxes"), anchors: anchors, &codes, n, weights: weights)
    #expect(error(codes, try fixture.floats("box_coder/codes")) < golden)
    let deltas = try fixture.floats("box_coder/deltas")
    var boxes = deltas
    Kernels.decodeBoxes(deltas, anchors: anchors, &boxes, n, classes: 3, weights: weights)
    #expect(error(boxes, try fixture.floats("box_coder/decoded")) < golden)
  }

  @Test(arguments: [false, true]) func matcher(_ lowQuality: Bool) throws {
    let rule = MatchRule(
      high: 0.7, low: 0.3, allowLowQuality: lowQuality, lowQualityMinimum: -1)
    let found = MatcherTests.match(
      try fixture.floats("matcher/boxes"), try fixture.floats("matcher/anchors"), rule)
    let expected = try fixture.integers("matcher/matches_\(lowQuality ? 1 : 0)")
    #expect(found.matches.map(Int64.init) == expected)
  }
}

@Suite struct LossFixtures {
  let fixture: Fixture

  init() throws { fixture = try Fixture("kernels") }

  /// Value, and gradient under the stored upstream factor, which `scale` applies.
  func check(
    _ name: String,
    _ loss: ([Float], Float, UnsafeMutablePointer<Float>) throws -> Double
  ) throws {
    let x = try fixture.floats("\(name)/input")
    let factor = try fixture.floats("\(name)/upstream")[0]
    let value = try fixture.floats("\(name)/output")[0]
    var gradient = [Float](repeating: .nan, count: x.count)
    let found = try loss(x, factor, &gradient)
    #expect(abs(Float(found) - value) < golden * max(1, abs(value)))
    #expect(error(gradient, try fixture.floats("\(name)/grad_input")) < golden)
  }

  @Test func elementwise() throws {
    for (name, beta): (String, Float) in [("1", 1), ("9", 1 / 9)] {
      try check("smooth_l1_\(name)") {
        Kernels.smoothL1(
          $0, try fixture.floats("smooth_l1_\(name)/target"), $0.count, beta: beta, scale: $1,
          gradient: $2)
      }
    }
    try check("focal") {
      Kernels.sigmoidFocal(
        $0, try fixture.floats("focal/targets"), $0.count, scale: $1, gradient: $2)
    }
    try check("binary_cross_entropy") {
      Kernels.binaryCrossEntropyWithLogits(
        $0, try fixture.floats("binary_cross_entropy/targets"), $0.count, scale: $1, gradient: $2)
    }
  }

  @Test func crossEntropy() throws {
    try check("cross_entropy") {
      Kernels.softmaxCrossEntropy(
        logits: $0, labels: try fixture.integers("cross_entropy/labels"), rows: 17, columns: 21,
        scale: $1, gradient: $2)
    }
  }

  @Test func giou() throws {
    try check("giou_loss") {
      Kernels.giouLoss(
        $0, try fixture.floats("giou_loss/targets"), $0.count / 4, scale: $1, gradient: $2)
    }
  }
}

@Suite struct MapFixtures {
  let fixture: Fixture

  init() throws { fixture = try Fixture("kernels") }

  @Test(arguments: 0..<3) func interpolation(_ index: Int) throws {
    let map = MapGeometry(images: 2, channels: 3, height: 5, width: 7)
    for mode in ["nearest", "bilinear"] {
      let name = "\(mode)_\(index)"
      let (x, g) = (
        try fixture.floats("\(name)/input"), try fixture.floats("\(name)/upstream")
      )
      let shape = try fixture.shape("\(name)/output")
      let (height, width) = (shape[2], shape[3])
      var (y, back) = (g, x)
      if mode == "nearest" {
        Kernels.nearestForward(x, map: map, outHeight: height, outWidth: width, output: &y)
        Kernels.nearestBackward(
          gradOutput: g, map: map, outHeight: height, outWidth: width, gradInput: &back)
      } else {
        Kernels.bilinearForward(x, map: map, outHeight: height, outWidth: width, output: &y)
        Kernels.bilinearBackward(
          gradOutput: g, map: map, outHeight: height, outWidth: width, gradInput: &back)
      }
      #expect(error(y, try fixture.floats("\(name)/output")) < golden)
      #expect(error(back, try fixture.floats("\(name)/grad_input")) < golden)
    }
  }

  @Test func softmax() throws {
    let x = try fixture.floats("softmax/input")
    var (y, back) = (x, x)
    Kernels.softmax(x, &y, rows: 7, columns: 21)
    #expect(error(y, try fixture.floats("softmax/output")) < golden)
    Kernels.softmaxBackward(
      output: y, gradOutput: try fixture.floats("softmax/upstream"), gradInput: &back, rows: 7,
      columns: 21)
    #expect(error(back, try fixture.floats("softmax/grad_input")) < golden)
    Kernels.logSoftmax(
      try fixture.floats("log_softmax/input"), &y, rows: 7, columns: 21)
    #expect(error(y, try fixture.floats("log_softmax/output")) < golden)
    Kernels.logSoftmaxBackward(
      output: y, gradOutput: try fixture.floats("log_softmax/upstream"), gradInput: &back, rows: 7,
      columns: 21)
    #expect(error(back, try fixture.floats("log_softmax/grad_input")) < golden)
  }

  @Test(arguments: [4, 5]) func lrn(_ size: Int) throws {
    let name = "lrn_\(size)"
    let rule = LRNRule(
      size: size, alpha: Float(try fixture.number("\(name)/alpha")),
      beta: Float(try fixture.number("\(name)/beta")), bias: Float(try fixture.number("\(name)/k")))
    let x = try fixture.floats("\(name)/input")
    var (y, d, back) = (x, x, x)
    Kernels.lrnForward(
      x, images: 2, channels: 9, area: 15, rule: rule, output: &y, denominators: &d)
    #expect(error(y, try fixture.floats("\(name)/output")) < golden)
    Kernels.lrnBackward(
      input: x, output: y, denominators: d, gradOutput: try fixture.floats("\(name)/upstream"),
      images: 2, channels: 9, area: 15, rule: rule, gradInput: &back)
    #expect(error(back, try fixture.floats("\(name)/grad_input")) < golden)
  }

  @Test func layerNorm() throws {
    let x = try fixture.floats("layer_norm/input")
    let (weight, bias) = (
      try fixture.floats("layer_norm/weight"), try fixture.floats("layer_norm/bias")
    )
    var (y, means, inverses) = (x, x, x)
    Kernels.layerNormForward(
      x, rows: 6, columns: 19, weight: weight, bias: bias, eps: 1e-5, output: &y, means: &means,
      inverses: &inverses)
    #expect(error(y, try fixture.floats("layer_norm/output")) < golden)
    var (back, gw, gb) = (x, weight, bias)
    Kernels.layerNormBackward(
      input: x, gradOutput: try fixture.floats("layer_norm/upstream"), rows: 6, columns: 19,
      weight: weight, means: means, inverses: inverses, gradInput: &back, gradWeight: &gw,
      gradBias: &gb)
    #expect(error(back, try fixture.floats("layer_norm/grad_input")) < golden)
    #expect(error(gw, try fixture.floats("layer_norm/grad_weight")) < golden)
    #expect(error(gb, try fixture.floats("layer_norm/grad_bias")) < golden)
  }

  @Test func groupNorm() throws {
    let x = try fixture.floats("group_norm/input")
    let (weight, bias) = (
      try fixture.floats("group_norm/weight"), try fixture.floats("group_norm/bias")
    )
    let shape = GroupNormGeometry(images: 2, channels: 6, area: 20, groups: 3)
    var (y, means, inverses) = (x, x, x)
    Kernels.groupNormForward(
      x, shape, weight: weight, bias: bias, eps: 1e-5, output: &y, means: &means,
      inverses: &inverses)
    #expect(error(y, try fixture.floats("group_norm/output")) < golden)
    var (back, gw, gb) = (x, weight, bias)
    Kernels.groupNormBackward(
      input: x, gradOutput: try fixture.floats("group_norm/upstream"), shape, weight: weight,
      means: means, inverses: inverses, gradInput: &back, gradWeight: &gw, gradBias: &gb)
    #expect(error(back, try fixture.floats("group_norm/grad_input")) < golden)
    #expect(error(gw, try fixture.floats("group_norm/grad_weight")) < golden)
    #expect(error(gb, try fixture.floats("group_norm/grad_bias")) < golden)
  }
}

@Suite struct OptimizerFixtures {
  let fixture: Fixture

  init() throws { fixture = try Fixture("kernels") }

  /// Ten steps of `step(parameter, gradient, first, second, number)`.
  func run(
    _ name: String,
    _ step: (
      UnsafeMutablePointer<Float>, UnsafePointer<Float>, UnsafeMutablePointer<Float>,
      UnsafeMutablePointer<Float>, Int
    ) -> Void
  ) throws {
    var w = try fixture.floats("optimizers/start")
    let slopes = try fixture.floats("optimizers/gradients")
    var (m, v) = ([Float](repeating: 0, count: 23), [Float](repeating: 0, count: 23))
    for k in 0..<10 { step(&w, Array(slopes[23 * k..<23 * (k + 1)]), &m, &v, k + 1) }
    #expect(error(w, try fixture.floats("optimizers/\(name)")) < golden)
  }

  @Test func sgd() throws {
    let cases: [(String, Float, Float, Float, Bool)] = [
      ("sgd", 0.9, 0, 0.01, false), ("sgd_dampening", 0.9, 0.3, 0, false),
      ("sgd_nesterov", 0.9, 0, 0.01, true), ("sgd_plain", 0, 0, 0.01, false),
    ]
    for (name, momentum, dampening, decay, nesterov) in cases {
      try run(name) {
        Kernels.sgdStep(
          $0, $1, buffer: $2, 23, learningRate: 0.05, momentum: momentum, dampening: dampening,
          weightDecay: decay, nesterov: nesterov, firstStep: $4 == 1)
      }
    }
  }

  @Test func adam() throws {
    try run("adam") {
      Kernels.adamStep(
        $0, $1, first: $2, second: $3, 23, step: $4, learningRate: 0.01, weightDecay: 0.01)
    }
    try run("adamw") {
      Kernels.adamWStep(
        $0, $1, first: $2, second: $3, 23, step: $4, learningRate: 0.01, weightDecay: 0.05)
    }
  }
}
