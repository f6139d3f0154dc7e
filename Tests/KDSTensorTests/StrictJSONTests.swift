import KDSTensor
import Testing

private struct Options: Codable, Equatable {
  struct Anchors: Codable, Equatable {
    var sizes: [Float] = [32, 64]
    var ratios: [Double] = [0.5, 1, 2]
  }
  enum Norm: String, Codable { case batch, frozenBatch = "frozen_batch" }

  var name = "student"
  var layers = 3
  var rate = 0.1
  var scale: Float = 0.1
  var frozen = false
  var limit: Int?
  var norm: Norm? = .batch
  var anchors = Anchors()
  var weights: [String: Double] = ["hint": 0.5]
}

@Suite struct StrictJSONTests {
  private func options(_ text: String) throws -> Options {
    try StrictJSON.decode(text, defaults: Options(), what: "Options")
  }

  private func message(_ text: String) -> String {
    do {
      _ = try options(text)
      return "no error"
    } catch { return "\(error)" }
  }

  @Test func absentKeysKeepTheirDefaults() throws {
    #expect(try options("{}") == Options())
    #expect(try options("") == Options())
    let read = try options(#"{"layers": 5, "anchors": {"ratios": [1]}, "limit": 7, "norm": null}"#)
    var wanted = Options()
    wanted.layers = 5
    wanted.anchors.ratios = [1]
    wanted.limit = 7
    wanted.norm = nil
    #expect(read == wanted)
  }

  @Test func wholeNumbersServeAsRealOnesAndBackWhenExact() throws {
    let read = try options(#"{"rate": 2, "layers": 4.0, "scale": 3}"#)
    #expect(read.rate == 2 && read.layers == 4 && read.scale == 3)
  }

  @Test func everyValueSurvivesWritingAndReading() throws {
    var wanted = Options()
    wanted.name = "ü \"quoted\"\\ \n\u{1}\u{1F600}"
    wanted.rate = 1e-300
    wanted.norm = .frozenBatch
    wanted.weights = ["a": 1, "hint": -0.25]
    #expect(try options(StrictJSON.encode(wanted)) == wanted)
  }

  @Test func textIsSortedAndShort() throws {
    let text = try StrictJSON.encode(Options())
    #expect(
      text.hasPrefix(#"{"anchors":{"ratios":[0.5,1.0,2.0],"sizes":[32.0,64.0]},"frozen":false"#))
    #expect(text.contains(#""limit":null"#))
    // A Float is written with its own shortest digits, not with those of the nearest Double.
    #expect(text.contains(#""scale":0.1"#))
  }

  @Test func unknownKeysAreNamedWithTheNearestOnes() {
    #expect(message(#"{"layer": 3}"#) == "Options: unknown key 'layer'; did you mean 'layers'?")
    #expect(
      message(#"{"anchors": {"ratio": [1]}}"#)
        == "Options: unknown key 'anchors.ratio'; did you mean 'ratios'?")
    #expect(message(#"{"anchors": {"xyzzy": 1}}"#).hasSuffix("allowed: ratios, sizes"))
    #expect(message(#"{"weights": {"anything": 1}}"#) == "no error")
  }

  @Test func aTypeWithoutMembersTakesNoKey() throws {
    struct Nothing: Codable, Equatable {}
    _ = try StrictJSON.decode("{}", defaults: Nothing(), what: "relu")
    #expect {
      _ = try StrictJSON.decode(#"{"slope": 1}"#, defaults: Nothing(), what: "relu")
    } throws: { "\($0)" == "relu: unknown key 'slope'; there are no keys here" }
  }

  @Test func wrongTypesAreNamed() {
    #expect(
      message(#"{"layers": "many"}"#)
        == #"Options: key 'layers' is "many", expected a whole number"#)
    #expect(message(#"{"layers": 2.5}"#).hasSuffix("'layers' is 2.5, expected a whole number"))
    #expect(message(#"{"frozen": 1}"#).hasSuffix("'frozen' is 1, expected a boolean"))
    #expect(message(#"{"name": null}"#).hasSuffix("'name' is null, expected a string"))
    #expect(message(#"{"anchors": {"sizes": [1, "2"]}}"#).contains("'anchors.sizes.[1]' is \"2\""))
    #expect(message(#"{"anchors": []}"#).hasSuffix("'anchors' is [], expected an object"))
    #expect(message(#"{"norm": "layer"}"#).contains("norm"))
    #expect(message("[]") == "Options: expected a JSON object, found an array")
  }

  @Test func integersBeyondTheirTypeAreRefused() {
    #expect(message(#"{"layers": 99999999999999999999}"#).contains("'layers' is 1e+20"))
    #expect(message(#"{"limit": 1e400}"#).contains("not a number"))
  }

  @Test(arguments: [
    "{", "}", "{]", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, #"{"a":1 "b":2}"#, #"{"a":1}x"#, "nul",
    #"{"a":"\x"}"#, #"{"a":"\ud800"}"#, #"{"a":"\u12"}"#, #"{"a":"open"#, "{\"a\":\"\n\"}", "--1",
    #"{"a":1,"a":2}"#, "",
  ])
  func damagedTextIsAFormatError(_ text: String) {
    #expect {
      _ = try StrictJSON.parse(text, what: "config.json")
    } throws: { error in
      guard case KDSError.format(let message) = error else { return false }
      return message.hasPrefix("config.json: JSON: ") && message.contains("at byte")
    }
  }

  @Test func deepNestingIsAnErrorAndNotAStackOverflow() {
    let text = String(repeating: "[", count: 1_000_000)
    #expect(throws: KDSError.self) { try StrictJSON.parse(text, what: "text") }
  }

  @Test func escapesAreRead() throws {
    let value = try StrictJSON.parse(#"["\u00e4\ud83d\ude00\/\b\f\n\r\t"]"#, what: "text")
    #expect(value == .array([.string("ä😀/\u{8}\u{C}\n\r\t")]))
  }
}
