#!/usr/bin/env python3
"""Measure every case in this folder and write the table of docs/methods/README.md.

tools/parity/table.py            measure, write the table
tools/parity/table.py --check    measure, fail where an error is above the limits; write nothing
tools/parity/table.py --only X   print the rows whose mechanism contains X

Needs PyTorch; `third_party.py` says where the classes of other libraries come from. Every module
here with a list `CASES` takes part.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "python")]

from case import Case, Difference, measure  # noqa: E402

PAGE = ROOT / "docs/methods/README.md"
BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"
# Single precision on both sides: sums of up to some ten thousand terms.
VALUE_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4

Row = tuple[Case, Difference]


def collect() -> list[Case]:
    """The cases of all modules, in the order of their names."""
    cases: list[Case] = []
    for path in sorted(HERE.glob("*.py")):
        if path.stem != "table" and "CASES" in path.read_text():
            cases += importlib.import_module(path.stem).CASES
    return cases


def order(case: Case) -> tuple[str, str]:
    """By mechanism, then by what it is compared with."""
    return case.name, case.source


def is_close(difference: Difference) -> bool:
    return difference.value <= VALUE_LIMIT and difference.gradient <= GRADIENT_LIMIT


def line(row: Row) -> str:
    case, difference = row
    learned = "—" if not case.learned else f"{difference.gradient:.1e}"
    cells = (case.name, case.source, difference.shapes, f"{difference.value:.1e}", learned)
    return f"| {' | '.join(map(str, cells))} |"


def markdown(rows: list[Row]) -> str:
    head = [
        "| mechanism | compared with | shapes | value | gradient |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(line(row) for row in rows)])


def write(rows: list[Row]) -> None:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="fail above the limits, write nothing")
    parser.add_argument("--only", default="", help="print the rows of these mechanisms")
    options = parser.parse_args()
    cases = sorted((case for case in collect() if options.only in case.name), key=order)
    rows = [(case, measure(case)) for case in cases]
    far = [row for row in rows if not is_close(row[1])]
    if options.only or options.check:
        print(markdown(rows))
    else:
        write(rows)
    print(f"{len(rows)} cases, {len(far)} above {VALUE_LIMIT:g} / {GRADIENT_LIMIT:g}")
    for row in far:
        print(line(row))
    sys.exit(bool(far))


if __name__ == "__main__":
    main()
