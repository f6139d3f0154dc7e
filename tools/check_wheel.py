#!/usr/bin/env python3
"""Prove that the wheel works on its own: built, installed into a new environment and used there,
with no Swift on PATH, every library coming from the wheel.

    tools/check_wheel.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"^kdswift-[\w.]+-py3-none-linux_\w+\.whl$")
# Libraries that the wheel brings; the process must map its copies and no others.
OURS = ("libkdswift-", "libdnnl.so", "libopenblas.so", "libgomp.so", "libOpenCL.so")

PROBE = """
import shutil, sys
wanted = tuple(sys.argv[1:])
assert shutil.which("swift") is None, "swift is on PATH"
import kdswift as kd
info = kd.build_info()
print(info)
kd.set_num_threads(2)
for name in kd.__all__:
    getattr(kd, name)
home = sys.prefix
lines = [line.split(maxsplit=5) for line in open("/proc/self/maps")]
files = {line[5].strip() for line in lines if len(line) == 6}
ours = {f for f in files if f.rsplit("/", 1)[-1].startswith(wanted)}
assert ours, "nothing mapped"
strangers = {f for f in ours if not f.startswith(home)}
assert not strangers, f"not from the wheel: {strangers}"
missing = [n for n in wanted if not any(f.rsplit("/", 1)[-1].startswith(n) for f in ours)]
assert not missing, f"not mapped: {missing}"
swift = [f for f in files if "swift" in f and not f.startswith(home)]
assert not swift, f"needs a Swift toolchain: {swift}"
"""


def run(*command: object, **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, **options)


def check_contents(wheel: Path) -> None:
    """The name, the package's files and the engine's libraries."""
    if not NAME.match(wheel.name):
        sys.exit(f"check_wheel: unexpected name {wheel.name}")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "kdswift"],
        cwd=ROOT / "python",
        capture_output=True,
        text=True,
        check=True,
    )
    for name in sorted(set(tracked.stdout.split()) - names):
        sys.exit(f"check_wheel: {name} is not in the wheel")
    if not any(n.startswith("kdswift/lib/libkdswift-") for n in names):
        sys.exit("check_wheel: the engine is not in the wheel")


def variants(wheel: Path) -> list[str]:
    """The processor variants in the wheel that this processor can run."""
    sys.path.insert(0, str(ROOT / "python"))
    from kdswift._library import supported_isas

    names = zipfile.ZipFile(wheel).namelist()
    return [isa for isa in supported_isas() if f"kdswift/lib/libkdswift-{isa}.so" in names]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="kdswift-wheel-") as folder:
        place = Path(folder)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
        run(*pip, "wheel", "--no-deps", "--wheel-dir", place, ROOT)
        (wheel,) = place.glob("*.whl")
        check_contents(wheel)
        run(sys.executable, "-m", "venv", place / "venv")
        python = place / "venv/bin/python"
        run(python, *pip[1:], "install", wheel)
        keep = ("HOME", "LANG", "TMPDIR")
        environment = {name: os.environ[name] for name in keep if name in os.environ}
        environment["PATH"] = f"{place}/venv/bin:/usr/bin:/bin"
        for isa in variants(wheel):
            run(python, "-c", PROBE, *OURS, cwd=place, env={**environment, "KDSWIFT_ISA": isa})
        size = wheel.stat().st_size / 2**20
        print(f"check_wheel: {wheel.name}, {size:.1f} MiB, works on its own")


if __name__ == "__main__":
    main()
