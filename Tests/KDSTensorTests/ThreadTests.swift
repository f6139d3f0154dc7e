import KDSTensor
import KDSTestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#endif

/// Runs `body` on a new thread and waits for it.
private func onNewThread(_ body: @escaping () -> Void) {
  final class Box {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
  }
  var thread = pthread_t()
  let box = Unmanaged.passRetained(Box(body)).toOpaque()
  let started = pthread_create(
    &thread, nil,
    { argument in
      Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
      return nil
    }, box)
  #expect(started == 0)
  pthread_join(thread, nil)
}

@Suite struct ThreadTests {
  /// A primitive made on one thread runs on another: the first shape goes by GEMM, whose columns need a
  /// scratchpad, the second by Winograd.
  @Test(arguments: [(12, 5, 2, 9), (16, 3, 1, 40)])
  func convolutionsRunOnAnyThread(channels: Int, kernel: Int, groups: Int, side: Int) throws {
    let images = try pattern([2, channels, side, side], key: 1)
    let weight = try pattern([channels, channels / groups, kernel, kernel], key: 2)
    weight.requiresGrad = true
    let options = ConvolutionOptions(padding: Padding(kernel / 2), groups: groups)
    func run() throws -> [[Float]] {
      weight.gradient = nil
      let output = try images.conv2d(weight, options)
      try Tape.backward(from: output, seed: pattern(output.shape, key: 3))
      return [try output.values(), try weight.gradient!.values()]
    }
    let here = try run()
    var there: Result<[[Float]], any Error>?
    onNewThread { there = Result { try run() } }
    // The same primitives on the same numbers: bit for bit.
    #expect(try #require(there).get() == here)
  }
}
