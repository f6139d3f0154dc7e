import KDSTestSupport
import Testing

/// Runs a case and reports each of its failures.
func check(_ testCase: OpCase, sourceLocation: SourceLocation = #_sourceLocation) throws {
  for failure in try testCase.failures() {
    Issue.record("\(testCase): \(failure)", sourceLocation: sourceLocation)
  }
}
