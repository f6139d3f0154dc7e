// swift-tools-version: 6.2
// No compiler flags live here: the Makefile sets `-march` and static linking for the whole build
// (a per-target `-march` leaks through cross-module optimisation).
import PackageDescription

/// Threads come from one OpenMP pool that the concurrency checker cannot see, so the language mode
/// stays at 5; data races are kept out by `parallelFor` giving each worker its own range.
let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v5),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
  name: "kdswift",
  products: [
    // MARK: - The shared library that the Python package loads
    .library(name: "kdswift", type: .dynamic, targets: ["KDSwift"])
  ],
  targets: [
    // MARK: - System libraries: declarations and the thinnest C that Swift cannot express
    .target(name: "COneDNN", linkerSettings: [.linkedLibrary("dnnl")]),
    .systemLibrary(name: "COpenBLAS"),
    .target(name: "COpenMP", linkerSettings: [.linkedLibrary("gomp")]),
    .target(name: "CBits"),

    // MARK: - The engine; imports go one way, from the bottom of this list to its top
    .target(
      name: "KDSKernels", dependencies: ["CBits", "COpenMP", "COpenBLAS"], swiftSettings: settings),
    .target(
      name: "KDSTensor", dependencies: ["KDSKernels", "COneDNN", "COpenBLAS", "COpenMP"],
      swiftSettings: settings),
    .target(name: "KDSNN", dependencies: ["KDSTensor", "KDSKernels"], swiftSettings: settings),
    .target(
      name: "KDSDetection", dependencies: ["KDSNN", "KDSTensor", "KDSKernels"],
      swiftSettings: settings),
    .target(
      name: "KDSDistill",
      dependencies: ["KDSDetection", "KDSNN", "KDSTensor", "KDSKernels", "COpenBLAS"],
      swiftSettings: settings),

    // MARK: - The C boundary
    .target(name: "CKDSwift"),
    .target(
      name: "KDSwift",
      dependencies: ["CKDSwift", "KDSDistill", "KDSDetection", "KDSNN", "KDSTensor", "KDSKernels"],
      swiftSettings: settings),

    // MARK: - Tests
    .target(
      name: "KDSTestSupport", dependencies: ["KDSTensor", "KDSKernels"],
      path: "Tests/KDSTestSupport", swiftSettings: settings),
    .testTarget(
      name: "KDSKernelsTests", dependencies: ["KDSKernels", "KDSTestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "KDSTensorTests", dependencies: ["KDSTensor", "KDSKernels", "KDSTestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "KDSNNTests", dependencies: ["KDSNN", "KDSTensor", "KDSTestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "KDSDetectionTests",
      dependencies: ["KDSDetection", "KDSNN", "KDSTensor", "KDSKernels", "KDSTestSupport"],
      swiftSettings: settings),
    .testTarget(
      name: "KDSDistillTests",
      dependencies: [
        "KDSDistill", "KDSDetection", "KDSNN", "KDSTensor", "KDSKernels", "KDSTestSupport",
      ],
      swiftSettings: settings),
  ]
)
