"""Builds the engine when it is not there yet, and tags the wheel: any Python, this platform."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).resolve().parent


class BuildEngine(build_py):
    """`make build` before the package's files are gathered.

    KDSWIFT_ISA_BUILD chooses the processor variants as `make build ISA=` does: "all" (default),
    "native", "v3" or "v4". An engine that is already built is taken as it is.
    """

    def run(self) -> None:
        isa = os.environ.get("KDSWIFT_ISA_BUILD", "all")
        built = list((ROOT / "python/kdswift/lib").glob("libkdswift-*.so"))
        if not (built and self.editable_mode):
            # Installing a Python package changes nothing else: what is missing is named, no more.
            check = {**os.environ, "KDSWIFT_INSTALL": "no"}
            command = ["bash", "tools/system.sh"]
            if subprocess.run(command, cwd=ROOT, env=check).returncode != 0:
                raise SystemExit("kdswift cannot be built yet: the lines above say what is missing")
            subprocess.run(["make", "build", f"ISA={isa}"], cwd=ROOT, check=True)
        super().run()


class PlatformWheel(bdist_wheel):
    """ctypes needs no interface of one Python version, so `py3-none-<platform>` fits."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class BinaryDistribution(Distribution):
    """Makes the wheel one for this platform: it carries libraries, though no extension module."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildEngine, "bdist_wheel": PlatformWheel},
)
