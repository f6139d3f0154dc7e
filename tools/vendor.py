#!/usr/bin/env python3
"""Copy the libraries that the engine links to beside it, so that it runs wherever it is copied.

    tools/vendor.py ENGINE TARGET_FOLDER [FOLDER_OF_OPENBLAS]

What every glibc system has stays outside: libc, libm, the loader, libstdc++ and libgcc_s.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

SYSTEM = re.compile(r"^(linux-vdso|ld-linux|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so)")


def linked(library: Path) -> dict[str, Path]:
    """Name and place of every library that the loader would bring in, directly or not."""
    output = subprocess.run(
        ["ldd", str(library)], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for line in output.splitlines():
        name, _, place = line.strip().partition(" => ")
        if SYSTEM.match(Path(name.split()[0]).name):
            continue
        if place.startswith("not found") or not place:
            sys.exit(f"vendor: {library} needs {name}, which is not on this system")
        found[name] = Path(place.split(" (")[0])
    return found


def is_current(copy: Path, source: Path) -> bool:
    """Whether the copy is there and no older than its source."""
    if not copy.exists():
        return False
    old, new = copy.stat(), source.stat()
    return old.st_size == new.st_size and old.st_mtime >= new.st_mtime


def main() -> None:
    engine, target = Path(sys.argv[1]), Path(sys.argv[2])
    preferred = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    for name, place in sorted(linked(engine).items()):
        if preferred and (preferred / name).exists():
            place = preferred / name
        copy = target / name
        source = place.resolve()
        if is_current(copy, source):
            continue
        # A new file instead of new bytes: a running process may have the old one mapped.
        fresh = copy.with_name(name + ".new")
        shutil.copyfile(source, fresh)
        fresh.replace(copy)
        print(f"vendored {name} from {place}")


if __name__ == "__main__":
    main()
