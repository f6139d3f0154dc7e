import COpenMP

#if canImport(Glibc)
  import Glibc
#endif

/// The one place that knows how many threads the engine uses. oneDNN, OpenBLAS and our kernels share
/// the OpenMP pool of libgomp, whose thread count is a per-thread setting; `Threads.enter()` pushes
/// ours to the calling thread, so that Python threads and the main thread behave alike.
public enum Threads {
  nonisolated(unsafe) private static var configured: Int = defaultCount()
  nonisolated(unsafe) private static var forkedChild = false

  /// Threads used by the next kernel; 1 in a forked child, where libgomp's pool does not exist.
  public static var count: Int {
    get { forkedChild ? 1 : configured }
    set {
      configured = max(1, newValue)
      enter()
    }
  }

  /// Applies the count to the calling thread; every call from outside passes here first.
  public static func enter() {
    omp_set_num_threads(Int32(count))
  }

  /// Makes children of `fork` run serially instead of waiting for threads that do not exist there.
  public static func installForkHandler() {
    _ = forkHandler
  }

  private static let forkHandler: Int32 = pthread_atfork(
    nil, nil,
    {
      Threads.forkedChild = true
      omp_set_num_threads(1)
    })

  private static func defaultCount() -> Int {
    if let text = getenv("OMP_NUM_THREADS"), let value = Int(String(cString: text)), value > 0 {
      return value
    }
    return max(1, Int(omp_get_num_procs()))
  }
}

private struct ParallelContext {
  let body: (Range<Int>) -> Void
  let count: Int
  let chunk: Int
}

/// Runs `body` over disjoint ranges that cover `0..<count`, on the OpenMP pool.
///
/// A range is at least `grain` long; below `grain`, or inside another parallel region, the body runs
/// once on the calling thread. The split depends on the thread count, so a *reduction* must not use
/// the ranges as its chunks: see `reduceChunks`.
@inline(never)
public func parallelFor(count: Int, grain: Int, _ body: (Range<Int>) -> Void) {
  if count <= 0 { return }
  let lanes = min(Threads.count, (count + max(grain, 1) - 1) / max(grain, 1))
  if lanes <= 1 || omp_in_parallel() != 0 {
    body(0..<count)
    return
  }
  let chunk = (count + lanes - 1) / lanes
  withoutActuallyEscaping(body) { escapable in
    var context = ParallelContext(body: escapable, count: count, chunk: chunk)
    withUnsafeMutablePointer(to: &context) { pointer in
      GOMP_parallel(
        { raw in
          let context = raw!.assumingMemoryBound(to: ParallelContext.self)
          // The runtime may grant fewer threads than asked for, so a thread may take several ranges.
          let step = Int(omp_get_num_threads()) * context.pointee.chunk
          var lower = Int(omp_get_thread_num()) * context.pointee.chunk
          while lower < context.pointee.count {
            context.pointee.body(lower..<min(lower + context.pointee.chunk, context.pointee.count))
            lower += step
          }
        }, pointer, UInt32(lanes), 0)
    }
  }
}

/// Sums `partial(range)` over chunks of fixed length, so that the result does not depend on the
/// number of threads. Chunk sums are added in order, in double precision.
public func reduceChunks(
  count: Int, chunk: Int = 16384, _ partial: (Range<Int>) -> Double
) -> Double {
  if count <= 0 { return 0 }
  let chunks = (count + chunk - 1) / chunk
  if chunks == 1 { return partial(0..<count) }
  return withUnsafeTemporaryAllocation(of: Double.self, capacity: chunks) { sums in
    let base = sums.baseAddress!
    parallelFor(count: chunks, grain: 1) { range in
      for index in range {
        let lower = index * chunk
        base[index] = partial(lower..<min(lower + chunk, count))
      }
    }
    var total = 0.0
    for index in 0..<chunks { total += base[index] }
    return total
  }
}
