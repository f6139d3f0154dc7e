#if canImport(Glibc)
  import Glibc
#endif

// libm under names that the kernels' own functions do not shadow.

func exponential(_ x: Double) -> Double { exp(x) }

func logarithm(_ x: Double) -> Double { log(x) }

func raised(_ x: Double, _ y: Double) -> Double { pow(x, y) }

func complementaryError(_ x: Double) -> Double { erfc(x) }
