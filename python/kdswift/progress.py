"""The bar of a run: losses and the time left; silent where nobody looks."""

from __future__ import annotations

from typing import Any

_SHOWN_TERMS = 4


class Progress:
    """A tqdm bar over all steps; nothing without tqdm or with `shown` False."""

    def __init__(self, total: int, done: int, shown: bool) -> None:
        self._bar: Any = None
        self._score = ""
        self._mean: dict[str, float] = {}
        if shown:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="step", dynamic_ncols=True, smoothing=0.05
            )

    def step(self, epoch: int, metrics: dict[str, float]) -> None:
        """One step further; shows running means, which can be read."""
        if self._bar is None:
            return
        for name, value in metrics.items():
            self._mean[name] = 0.95 * self._mean.get(name, value) + 0.05 * value
        terms = [n for n in self._mean if n not in ("loss", "lr", "grad_norm")][:_SHOWN_TERMS]
        names = ["loss", *terms]
        text = " ".join(f"{n} {self._mean[n]:.3g}" for n in names if n in self._mean)
        self._bar.set_description_str(f"epoch {epoch}{self._score}", refresh=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(1)

    def epoch(self, row: dict[str, Any]) -> None:
        """Keep the newest score in view."""
        if row.get("AP") is not None:
            self._score = f", AP {100 * row['AP']:.1f}"

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def say(text: str) -> None:
    """Print a line without tearing a bar apart."""
    from tqdm.auto import tqdm

    tqdm.write(text)
