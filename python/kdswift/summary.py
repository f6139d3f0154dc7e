"""Tables that show themselves: taps, layers, reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._tables import columns_of, html_table, text_table

_FIRST = ("name", "layer", "channels", "stride", "kind")


class Table(Sequence):
    """Rows (dicts) that print as a table, in a notebook as HTML. ``table[0]["name"]`` reads one."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], title: str = "", footer: str = ""):
        order = [name for name in _FIRST if any(name in row for row in rows)]
        names = [*order, *(name for name in columns_of(rows) if name not in order)]
        self.rows = [{name: row[name] for name in names if name in row} for row in rows]
        self.title, self.footer = title, footer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        return [row.get(name) for row in self.rows]

    def frame(self) -> Any:
        """A pandas DataFrame if pandas is there, else a dict of columns."""
        columns = {name: self.column(name) for name in columns_of(self.rows)}
        try:
            import pandas
        except ImportError:
            return columns
        return pandas.DataFrame(columns)

    def __repr__(self) -> str:
        return "\n".join(part for part in (self.title, text_table(self.rows), self.footer) if part)

    def _repr_html_(self) -> str:
        import html

        parts = [
            f"<p>{html.escape(text)}</p>" if text else "" for text in (self.title, self.footer)
        ]
        return parts[0] + html_table(self.rows) + parts[1]


def summarize(model: Any) -> Table:
    """The layers of a detector with their parameters, and its totals."""
    short, longest = model.image_size
    footer = (
        f"{model.num_parameters:,} parameters, {model.flops() / 1e9:.3g} GFLOPs per "
        f"{short}x{short} image; images are scaled to {short} (at most {longest}) pixels"
    )
    return Table(model._engine.summary(), repr(model), footer)
