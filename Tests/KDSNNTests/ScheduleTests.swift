import KDSNN
import KDSTensor
import KDSTestSupport
import Testing

@Suite struct ScheduleTests {
  private func schedule(
    _ name: String, _ change: (inout ScheduleConfiguration) -> Void = { _ in }
  ) -> ScheduleConfiguration {
    var c = ScheduleConfiguration()
    c.name = name
    change(&c)
    return c
  }

  /// Doubles against PyTorch's recursions stored as float32.
  private func close(_ a: Double, _ b: Float) -> Bool { abs(a - Double(b)) < 1e-6 }

  @Test func equalPyTorch() throws {
    let fixture = try Fixture("detection")
    let cosine = schedule("cosine") {
      $0.total_steps = 12
      $0.final_factor = 0.1
    }
    let linear = schedule("linear") {
      $0.total_steps = 8
      $0.final_factor = 0.25
    }
    let step = schedule("step") { $0.milestones = [3, 7] }
    for (name, schedule) in [("cosine", cosine), ("linear", linear), ("step", step)] {
      try schedule.check()
      let wanted = try fixture.floats("schedules/\(name)")
      for index in 0..<12 {
        #expect(close(schedule.factor(step: index), wanted[index]), "\(name) \(index)")
      }
    }
  }

  @Test func constantIsOne() {
    for step in [0, 1, 1_000_000] { #expect(schedule("constant").factor(step: step) == 1) }
  }

  @Test func warmUpRisesToTheBaseRate() {
    let c = schedule("step") {
      $0.warmup_steps = 4
      $0.warmup_start = 0.2
      $0.milestones = [6]
      $0.gamma = 0.5
    }
    let found = (0..<8).map { c.factor(step: $0) }
    for (a, b) in zip(found, [0.4, 0.6, 0.8, 1, 1, 1, 0.5, 0.5]) { #expect(abs(a - b) < 1e-12) }
  }

  /// After warm-up the cosine runs from 1 at its first step to the final factor at the end.
  @Test func cosineStartsAfterWarmUp() {
    let c = schedule("cosine") {
      $0.total_steps = 10
      $0.warmup_steps = 2
      $0.final_factor = 0.2
    }
    #expect(c.factor(step: 2) == 1)
    #expect(abs(c.factor(step: 6) - 0.6) < 1e-12)
    for step in [10, 11, 500] { #expect(abs(c.factor(step: step) - 0.2) < 1e-12) }
  }

  @Test func stepsLongerThanTheRunStayDefined() {
    let c = schedule("linear") {
      $0.total_steps = 2
      $0.warmup_steps = 5
    }
    for step in 0..<10 { #expect(c.factor(step: step).isFinite && c.factor(step: step) >= 0) }
  }

  @Test func badSchedulesAreRefused() {
    for bad in [
      schedule("exponential"), schedule("cosine"), schedule("linear"),
      schedule("constant") { $0.warmup_steps = -1 }, schedule("step") { $0.gamma = .nan },
      schedule("step") { $0.total_steps = -1 },
      schedule("constant") { $0.final_factor = .infinity },
      schedule("constant") { $0.warmup_start = .nan },
    ] {
      #expect(throws: KDSError.self, "\(bad)") { try bad.check() }
    }
  }
}
