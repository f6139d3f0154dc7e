"""What student and teacher are compared by, as text, before a run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._tables import text_table


def shape_report(engine: Any, terms: Sequence[Mapping[str, Any]] = ()) -> str:
    """Tables of the engine's report (connectors, terms) and of the terms that Python computes."""
    parts = []
    sections = engine.items() if isinstance(engine, Mapping) else [("terms", engine)]
    for title, value in sections:
        if isinstance(value, Mapping):
            value = [value]
        if _rows(value):
            parts.append(f"{title}:\n{text_table(value)}")
        elif isinstance(value, (list, tuple)) and value:
            parts.append(f"{title}: {', '.join(map(str, value))}")
        elif not isinstance(value, (list, tuple)):
            parts.append(f"{title}: {value}")
    if terms:
        parts.append(f"own terms:\n{text_table(terms)}")
    return "\n".join(parts) if parts else "nothing is compared: every weight is 0"


def _rows(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(row, Mapping) for row in value)
    )
