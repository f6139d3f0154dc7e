#!/usr/bin/env python3
"""The project's own rules, over tracked files. Prints each breach as file:line and fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 400

BOUNDARY = r"^Sources/KDSwift/.*\.swift$"
ENGINE = r"^Sources/.*\.swift$"
PACKAGE = r"^python/kdswift/"
NO_TRAP = "the boundary throws, it never traps"

# (files, pattern, why it is forbidden)
RULES = [
    (ENGINE, r"^\s*(@\w+\s+)?import Foundation\b", "Foundation makes the library far larger"),
    (ENGINE, r"\.(addingProduct|addProduct)\(", "slow without FMA: write acc += a * b"),
    (ENGINE, r"^\s*print\(", "the library never prints on its own"),
    (BOUNDARY, r"\b(fatalError|preconditionFailure|precondition|assert)\(", NO_TRAP),
    (BOUNDARY, r"\b(try|as)!", NO_TRAP),
    (BOUNDARY, r"[\w\])]!(?!=)", NO_TRAP),
    (r"^Package\.swift$", r"unsafeFlags|-march=|-Ounchecked", "flags live in the Makefile"),
    (r"^Makefile$", r"-Ounchecked|-enforce-exclusivity", "checks stay on"),
    (PACKAGE + r"(?!_library\.py)", r"\b(CDLL|PyDLL)\b", "only _library.py opens the engine"),
    (PACKAGE, r"import pickle|allow_pickle=True|weights_only=False", "no pickle is ever opened"),
    (r"", r"(?<![\w.:/-])/(root|home|work|Users|opt/swift)/", "a path of one machine"),
]


def tracked() -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    return sorted(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    )


def breaches(name: str) -> list[str]:
    """The breaches of one file."""
    path = ROOT / name
    if not path.is_file() or name == "tools/lint.py":
        return []
    content = path.read_bytes()
    if b"\0" in content:
        return []
    lines = content.decode(errors="replace").splitlines()
    found = []
    rules = [(re.compile(p), why) for files, p, why in RULES if re.search(files, name)]
    for number, line in enumerate(lines, 1):
        code = line.split("//", 1)[0] if path.suffix == ".swift" else line
        found += [f"{name}:{number}: {why}" for pattern, why in rules if pattern.search(code)]
    if path.suffix in (".swift", ".py", ".c", ".h") and len(lines) > LONGEST_FILE:
        found.append(f"{name}: {len(lines)} lines, at most {LONGEST_FILE}: one concept a file")
    return found


def main() -> None:
    found = [breach for name in tracked() for breach in breaches(name)]
    print("\n".join(found) if found else "lint: clean")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
