import KDSDetection
import KDSNN
import KDSTensor

/// A weighted scalar that joins the total loss, with the name under which it is logged.
public struct LossTerm {
  public let name: String
  public let tensor: Tensor
  public let weight: Float

  public init(name: String, tensor: Tensor, weight: Float) {
    self.name = name
    self.tensor = tensor
    self.weight = weight
  }
}

/// What a frozen teacher computed for one batch; nothing here is on the tape.
public struct TeacherPass {
  public let teacher: any Detector
  public let pass: any DensePass
  public var batch: PreparedBatch { pass.batch }
  public var maps: FeatureMaps { pass.maps }

  /// The one place where teachers run: evaluation mode, no tape; backbone and neck alone unless their
  /// `heads` are read.
  public init(_ teacher: any Detector, _ batch: PreparedBatch, heads: Bool = true) throws {
    self.teacher = teacher
    pass = try Tape.withoutGrad {
      heads
        ? try teacher.densePass(batch)
        : try teacher.mapsPass(batch)
    }
  }

  /// Every tap; those of the region head where teacher and student both have one.
  public func taps(for student: any TrainingPass) throws -> [NamedTensor] {
    guard teacher is FasterRCNN, let student = student as? FasterRCNNTrainingPass else {
      return pass.taps
    }
    let (logits, deltas) = try regionOutputs(of: student)
    return pass.taps + [("roi.class_logits", logits), ("roi.box_deltas", deltas)]
  }

  /// The teacher's region head on the student's regions: class logits (R, K) and offsets (R, 4K).
  public func regionOutputs(of student: FasterRCNNTrainingPass) throws -> (
    logits: Tensor, deltas: Tensor
  ) {
    guard let teacher = teacher as? FasterRCNN else {
      throw KDSError.argument("teacher: \(type(of: teacher)) has no region head")
    }
    return try Tape.withoutGrad {
      try teacher.roiHead(maps.levels.map(\.tensor), rois(of: student))
    }
  }

  /// The student's regions in the teacher's input pixels.
  private func rois(of pass: FasterRCNNTrainingPass) throws -> Tensor {
    let scales = batch.images.shape[0]
    let rois = try pass.rois.detached().copied()
    for row in 0..<rois.shape[0] {
      let roi = rois.floats + 5 * row
      let image = Int(roi[0])
      if image >= scales { continue }
      let (from, to) = (pass.batch.scales[image], batch.scales[image])
      let (x, y) = (to.x / from.x, to.y / from.y)
      if x == 1 && y == 1 { continue }
      roi[1] *= x
      roi[2] *= y
      roi[3] *= x
      roi[4] *= y
    }
    return rois
  }
}

/// One published method at work for one student and one teacher.
public protocol DistillationPart: AnyObject {
  /// Connectors, to be trained and saved with the run.
  var connectors: Module { get }
  /// Factor on all terms in the coming step; schedules move it.
  var factor: Float { get set }
  /// Factor that this part puts on a detection loss of the student, by its name; 1 where it leaves it alone.
  func detectionWeight(_ loss: String) -> Float
  /// The terms of one step.
  func terms(_ pass: any TrainingPass, _ teacher: TeacherPass) throws -> [LossTerm]
  /// What is compared with what, for the shape report.
  var report: [ConnectorReport] { get }
}
