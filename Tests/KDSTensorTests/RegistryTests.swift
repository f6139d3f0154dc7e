import KDSTensor
import KDSTestSupport
import Testing

@Suite struct RegistryTests {
  private func call(
    _ name: String, _ inputs: [Tensor], _ attributes: String = ""
  ) throws -> [Float] {
    try OpRegistry.apply(name, inputs, attributes: attributes)[0].values()
  }

  @Test func operationsByName() throws {
    let a = try tensor([1, 2, 3, 4], [2, 2])
    let b = try tensor([4, 3, 2, 1], [2, 2])
    #expect(try call("add", [a, b]) == [5, 5, 5, 5])
    #expect(try call("add", [a], #"{"value": 1}"#) == [2, 3, 4, 5])
    #expect(try call("sub", [a], #"{"value": 1, "reverse": true}"#) == [0, -1, -2, -3])
    #expect(try call("div", [a], #"{"value": 12, "reverse": true}"#) == [12, 6, 4, 3])
    #expect(try call("pow", [a], #"{"value": 2}"#) == [1, 4, 9, 16])
    #expect(try call("lt", [a], #"{"value": 2, "reverse": true}"#) == [0, 0, 1, 1])
    #expect(try call("matmul", [a, b]) == [8, 5, 20, 13])
    #expect(try call("sum", [a], #"{"axes": [0], "keep_dims": true}"#) == [4, 6])
    #expect(try call("clamp", [a], #"{"max": 2.5}"#) == [1, 2, 2.5, 2.5])
    #expect(try call("permute", [a], #"{"order": [1, 0]}"#) == [1, 3, 2, 4])
    #expect(try call("cat", [a, b], #"{"axis": 1}"#) == [1, 2, 4, 3, 3, 4, 2, 1])
    #expect(try call("mse", [a, b], #"{"reduction": "sum"}"#) == [20])
    let parts = try OpRegistry.apply("split", [a], attributes: #"{"sizes": [1, 1], "axis": 0}"#)
    #expect(try parts.map { try $0.values() } == [[1, 2], [3, 4]])
    let kept = try OpRegistry.apply(
      "nms", [tensor([0, 0, 4, 4, 0, 0, 4, 3, 9, 9, 10, 10], [3, 4]), tensor([1, 2, 3], [3])])
    #expect(kept[0].integerValues == [2, 1])
  }

  @Test func backgroundWeight() throws {
    let logits = try Tensor.zeros([1, 2])
    // 0.5 ln 2 (1.5 + 1)
    let value = try call("weighted_soft_cross_entropy", [logits, logits])[0]
    #expect(abs(value - 0.866434) < 1e-6)
    let plain = try call(
      "weighted_soft_cross_entropy", [logits, logits], #"{"background_weight": 1}"#)[0]
    #expect(abs(plain - 0.693147) < 1e-6)
  }

  @Test func everyOperationDescribesItself() throws {
    let text = try OpRegistry.describe()
    guard case .object(let members) = try StrictJSON.parse(text, what: "operations") else {
      Issue.record("not an object")
      return
    }
    #expect(members.keys.sorted() == OpRegistry.names)
    #expect(OpRegistry.names.count >= 80)
  }

  /// Inputs that fit nothing: each call may work or throw, and must not trap.
  @Test(arguments: OpRegistry.names) func hostileInputsDoNotTrap(_ name: String) throws {
    let pool = try [
      Tensor.scalar(1), Tensor.zeros([0]), tensor([1, .nan, .infinity], [3]),
      Tensor.zeros([2, 4]), Tensor.zeros([0, 4]), integers([0, -7], [2]),
      integers([.max, .min, 0, 1], [2, 2]), Tensor.zeros([1, 3, 5, 5]), Tensor.zeros([3, 1, 1, 1]),
      Tensor.zeros([1, 3, 5, 5]).inLayout(.preferred), Tensor.zeros([0, 3, 0, 5]),
      tensor([0, -1e30, 0, 1e30, .nan], [1, 5]),
    ]
    for first in pool {
      _ = try? OpRegistry.apply(name, [first])
      for second in pool {
        _ = try? OpRegistry.apply(name, [first, second])
        _ = try? OpRegistry.apply(name, [first, second, second])
        _ = try? OpRegistry.apply(name, [first, second, first])
      }
    }
  }

  @Test func wrongCallsSayWhatIsWrong() throws {
    let x = try tensor([1], [1])
    for (name, inputs, attributes) in [
      ("no_such_operation", [x], ""), ("relu", [x, x], ""), ("add", [x], ""),
      ("add", [x, x], #"{"value": 1}"#), ("relu", [x], #"{"speed": 1}"#), ("sum", [x], "[1]"),
      ("sum", [x], #"{"axes": "all"}"#), ("mse", [x, x], #"{"reduction": "median"}"#),
      ("cat", [], ""), ("cast", [x], #"{"dtype": "float16"}"#), ("sum", [x], "{"),
      ("reshape", [x], #"{"shape": [9223372036854775807, 2]}"#),
      ("conv2d", [x, x], #"{"groups": 9223372036854775807}"#),
      ("max_pool2d", [x], #"{"padding": [9223372036854775807]}"#),
    ] as [(String, [Tensor], String)] {
      do {
        _ = try OpRegistry.apply(name, inputs, attributes: attributes)
        Issue.record("\(name) \(attributes) passed")
      } catch let error as KDSError {
        #expect(error.description.contains(name), "\(error)")
      }
    }
  }
}
