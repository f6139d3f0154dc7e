import KDSKernels
import KDSNN
import KDSTensor
import Testing

@testable import KDSDetection

@Suite struct FasterRCNNTests {
  // MARK: - Size and configuration

  /// Published sizes for VOC (20 classes and background), counted from the shapes of a detector whose two
  /// hidden layers are narrow: at full width they alone are 120 million random numbers.
  @Test(arguments: [("alexnet", 57.9), ("vgg16", 137.1), ("vgg_m", 87.5)])
  func parameterCountsOfVOCDetectors(name: String, millions: Double) throws {
    var c = FasterRCNNConfiguration()
    c.backbone.name = name
    c.roi.hidden = [8, 8]
    let model = try FasterRCNN(c, seed: 1)
    let full = model.backbone.headDefaults.hidden
    let wide: [String: [Int]] = [
      "roi_heads.box_head.fc6.weight": [0], "roi_heads.box_head.fc6.bias": [0],
      "roi_heads.box_head.fc7.weight": [1, 0], "roi_heads.box_head.fc7.bias": [1],
      "roi_heads.box_predictor.cls_score.weight": [-1, 1],
      "roi_heads.box_predictor.bbox_pred.weight": [-1, 1],
    ]
    var count = 0
    for (name, tensor) in model.namedParameters() {
      var shape = tensor.shape
      for (axis, layer) in (wide[name] ?? []).enumerated() where layer >= 0 {
        #expect(shape[axis] == 8)
        shape[axis] = full[layer]
      }
      count += shape.reduce(1, *)
    }
    #expect(Set(wide.keys).isSubset(of: model.namedParameters().map(\.name)))
    #expect(abs(Double(count) / 1e6 - millions) < 0.05, "\(count)")
  }

  @Test func namesFollowTorchvision() throws {
    let names = try tinyDetector().namedParameters().map(\.name)
    for name in [
      "backbone.conv1.weight", "rpn.head.conv.0.0.weight", "rpn.head.cls_logits.bias",
      "rpn.head.bbox_pred.weight", "roi_heads.box_head.fc6.weight",
      "roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.bbox_pred.bias",
    ] {
      #expect(names.contains(name), "\(name)")
    }
    #expect(Set(names).count == names.count)
  }

  @Test func theConfigurationRebuildsTheDetector() throws {
    let model = try tinyDetector { $0.roi.pool = "pool" }
    let text = try model.configurationText()
    let read = try StrictJSON.decode(text, defaults: FasterRCNNConfiguration(), what: "test")
    #expect(read == model.configuration)
    let twin = try FasterRCNN(read, seed: 9)
    #expect(try twin.configurationText() == text)
    let (own, other) = (model.namedParameters(), twin.namedParameters())
    #expect(own.map(\.name) == other.map(\.name))
    #expect(own.map(\.tensor.shape) == other.map(\.tensor.shape))
    for (a, b) in zip(own + model.namedBuffers(), other + twin.namedBuffers()) {
      b.tensor.floats.update(from: a.tensor.floats, count: a.tensor.count)
      b.tensor.markChanged()
    }
    for part in [model, twin] { part.setTraining(false) }
    let batch = try model.prepare(tinyBatch())
    let (found, wanted) = (try twin.dense(batch).taps, try model.dense(batch).taps)
    for (a, b) in zip(found, wanted) { #expect(try a.tensor.values() == b.tensor.values()) }
    let (mine, yours) = try (model.detect(batch, .init()), twin.detect(batch, .init()))
    #expect(mine.map { $0.map(\.box) } == yours.map { $0.map(\.box) })
  }

  @Test(arguments: [
    ("num_classes", { (c: inout FasterRCNNConfiguration) in c.num_classes = 1 }),
    ("class_names", { $0.class_names = ["a"] }), ("image", { $0.image_min = 0 }),
    ("image", { $0.image_max = 8 }), ("size_divisor", { $0.size_divisor = 0 }),
    ("image_mean", { $0.image_mean = [0.5] }), ("std", { $0.image_std = [1, 1, 0] }),
    ("anchors", { $0.anchor_sizes = [] }), ("batch", { $0.rpn.batch = 0 }),
    ("batch", { $0.roi.batch = -3 }), ("pool", { $0.roi.pool = "warp" }),
    ("box_std", { $0.roi.box_std = [1, 1] }), ("pool_size", { $0.roi.pool_size = 1000 }),
    ("dropout", { $0.roi.dropout = 1 }), ("hidden", { $0.roi.hidden = [0] }),
    ("resnet9", { $0.backbone.name = "resnet9" }),
  ])
  func badConfigurationsAreNamed(
    part: String, change: (inout FasterRCNNConfiguration) -> Void
  ) throws {
    let error = #expect(throws: KDSError.self) {
      try FasterRCNN(tinyConfiguration(change), seed: 1)
    }
    #expect("\(error!)".contains(part), "\(error!)")
  }

  @Test func labelsOutsideTheClassesAreNamed() throws {
    for label: Int64 in [0, 3, -1, .max] {
      let image = RawImage(
        pixels: .bytes([UInt8](repeating: 0, count: 3 * 32 * 40)), channels: 3, height: 32,
        width: 40, boxes: [1, 1, 9, 9], labels: [label])
      let model = try tinyDetector()
      let batch = try model.prepare(RawBatch(images: [image], hasTargets: true))
      let error = #expect(throws: KDSError.self) { try model.losses(batch, seed: 1) }
      #expect("\(error!)".contains("label \(label)"))
    }
  }

  // MARK: - A training pass

  @Test func aPassHasTheShapesItPromises() throws {
    let model = try tinyDetector()
    let pass = try model.training(model.prepare(tinyBatch()), seed: 3)
    // 4 x 5 cells with four anchors.
    #expect(pass.rpnOutput.logits.shape == [160, 2] && pass.rpnOutput.deltas.shape == [160, 4])
    #expect(pass.rpn.rows.count == pass.rpn.labels.count && pass.rpn.rows.count <= 48)
    #expect(pass.rpn.positiveRows.allSatisfy { pass.rpn.rows.contains($0) })
    #expect(pass.rpn.targets.shape == [pass.rpn.positiveRows.count, 4])
    let regions = pass.rois.shape[0]
    #expect(regions > 0 && regions <= 24 && pass.rois.shape == [regions, 5])
    #expect(pass.classLogits.shape == [regions, 3] && pass.boxDeltas.shape == [regions, 12])
    #expect(pass.rcn.rows == Array(0..<regions))
    #expect(!pass.rcn.positiveRows.isEmpty && pass.rcn.positiveRows.count <= 6)
    #expect(pass.rcn.deltas.shape == [pass.rcn.positiveRows.count, 4])
    let labels = pass.rcn.labels.integers
    for (row, label) in zip(pass.rcn.positiveRows, pass.rcn.positiveClasses) {
      #expect(labels[row] == Int64(label) && label > 0)
    }
    #expect(
      pass.losses.map(\.name) == [
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg",
      ])
  }

  @Test func thePassFollowsTheSeed() throws {
    let model = try tinyDetector { $0.roi.dropout = 0.5 }
    let batch = try model.prepare(tinyBatch())
    func values(_ seed: UInt64) throws -> [Float] {
      try model.losses(batch, seed: seed).map { $0.tensor.item }
    }
    #expect(try values(3) == values(3))
    #expect(try values(3) != values(4))
  }

  /// Approximate joint training: the region head teaches the backbone, but not the proposal network.
  @Test func eachLossReachesItsOwnParts() throws {
    for (index, own, other) in [
      (0, "rpn", "roi_heads"), (1, "rpn", "roi_heads"), (2, "roi_heads", "rpn"),
      (3, "roi_heads", "rpn"),
    ] {
      let model = try tinyDetector()
      let losses = try model.losses(model.prepare(tinyBatch()), seed: 3)
      try Tape.backward(from: losses[index].tensor)
      func learned(_ prefix: String) throws -> [Bool] {
        try model.namedParameters().filter { $0.name.hasPrefix(prefix) }.map {
          try $0.tensor.gradient?.values().contains { $0 != 0 } ?? false
        }
      }
      #expect(try learned("backbone.").allSatisfy { $0 }, "\(losses[index].name)")
      #expect(try learned(own).contains(true) && !learned(other).contains(true))
    }
  }

  // MARK: - Taps and inference

  @Test func tapsAreAsDescribed() throws {
    let model = try tinyDetector()
    model.setTraining(false)
    let tensors = try model.dense(model.prepare(tinyBatch())).taps
    let described = model.taps.filter { !$0.name.hasPrefix("roi.") }
    #expect(tensors.map(\.name) == described.map(\.name))
    for (found, description) in zip(tensors, described) {
      #expect(found.tensor.shape[1] == description.channels)
      #expect(found.tensor.shape[2] == 32 / description.stride)
    }
    #expect(model.taps.map(\.name).contains("backbone.layer3"))
  }

  @Test(arguments: ["align", "pool"])
  func detectionsAreInsideTheImage(pool: String) throws {
    let model = try tinyDetector {
      $0.roi.pool = pool
      $0.roi.score_threshold = 0.2
      $0.roi.max_detections = 7
    }
    model.setTraining(false)
    // 64 x 80 becomes 32 x 40, and boxes come back in pixels of 64 x 80.
    let batch = try model.prepare(tinyBatch(height: 64, width: 80))
    let found = try model.detect(batch, PredictionOptions())
    #expect(found.count == 2 && !found[0].isEmpty)
    for detections in found {
      #expect(detections.count <= 7)
      #expect(detections.map(\.score) == detections.map(\.score).sorted(by: >))
      for d in detections {
        #expect(d.score > 0.2 && d.score <= 1 && (1...2).contains(d.label))
        #expect(d.box[0] >= 0 && d.box[1] >= 0 && d.box[2] <= 80 && d.box[3] <= 64)
        #expect(d.box[0] < d.box[2] && d.box[1] < d.box[3])
      }
    }
    #expect(found[0].contains { $0.box[2] > 40 } || found[1].contains { $0.box[2] > 40 })
  }

  @Test func anImageAloneIsAnImageInABatch() throws {
    let model = try tinyDetector { $0.roi.score_threshold = 0.2 }
    model.setTraining(false)
    let raw = try tinyBatch()
    let both = try model.detect(model.prepare(raw), PredictionOptions())
    for (index, image) in raw.images.enumerated() {
      let alone = try model.detect(
        model.prepare(RawBatch(images: [image], hasTargets: false)), PredictionOptions())[0]
      #expect(alone.map(\.label) == both[index].map(\.label))
      for (a, b) in zip(alone, both[index]) {
        // Convolutions may add in another order for another batch size.
        #expect(abs(a.score - b.score) < 1e-5 && (a.box - b.box).max() < 1e-3)
      }
    }
  }

  @Test func noProposalsIsNoDetections() throws {
    let model = try tinyDetector { $0.rpn.min_size = 1000 }
    model.setTraining(false)
    #expect(try model.detect(model.prepare(tinyBatch()), .init()).allSatisfy { $0.isEmpty })
  }
}
