#!/usr/bin/env python3
"""Fail unless each library exports exactly the functions that the C headers declare.

    tools/check_exports.py LIBRARY...

Finds what the compiler does not: declared and never implemented, implemented and not public,
exported by accident.
"""

from __future__ import annotations

import subprocess
import sys

from generate_signatures import declarations


def exported(library: str) -> set[str]:
    """The names that the library's dynamic symbol table defines."""
    command = ["nm", "-D", "--defined-only", "--extern-only", library]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[-1].split("@")[0] for line in lines}


def main() -> None:
    declared = set(declarations()[1])
    failed = False
    for library in sys.argv[1:]:
        names = exported(library)
        for name in sorted(declared - names):
            print(f"{library}: {name} is declared but not exported")
        for name in sorted(names - declared):
            print(f"{library}: {name} is exported but not declared")
        failed |= names != declared
    if failed or not sys.argv[1:]:
        sys.exit("check_exports: headers and libraries differ")
    print(f"check_exports: {len(declared)} functions")


if __name__ == "__main__":
    main()
