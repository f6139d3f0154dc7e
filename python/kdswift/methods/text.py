"""Methods written as text: ``cwd:weight=3,temperature=2 + 0.5*pkd``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..errors import ArgumentError
from .base import Method


def parse(text: str, known: dict[str, type[Method]]) -> Method:
    """A method from its text.

    Summands are joined by "+"; each is ``[FACTOR*]NAME[:option=value,…]``. Values are
    numbers, true, false, none or words.

    >>> kd.methods.by_name("cwd:weight=3 + 0.5*pkd")
    CWD(weight=3) + 0.5 * PKD()
    """
    total: Method | None = None
    for piece in _summands(text):
        one = _summand(piece.strip(), text, known)
        total = one if total is None else total + one
    assert total is not None
    return total


def _summands(text: str) -> list[str]:
    """Split at "+", but not inside a number such as 1e+3."""
    pieces, start = [], 0
    for i, sign in enumerate(text):
        if sign == "+" and not (i >= 2 and text[i - 1] in "eE" and text[i - 2].isdigit()):
            pieces.append(text[start:i])
            start = i + 1
    return [*pieces, text[start:]]


def _summand(piece: str, text: str, known: dict[str, type[Method]]) -> Method:
    factor, star, rest = piece.rpartition("*")
    name, _, options = rest.strip().partition(":")
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ArgumentError(f"method {text!r}: {name!r} is not known; {hint}")
    given: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ArgumentError(f"method {text!r}: {part!r} is no option=value")
        given[key.strip()] = _value(value.strip())
    options_of = [field.name for field in fields(known[name])]  # type: ignore[arg-type]
    for key in given:
        if key not in options_of:
            raise ArgumentError(
                f"method {text!r}: {name} has no option {key!r}; it has {', '.join(options_of)}"
            )
    method = known[name](**given)  # type: ignore[call-arg]
    if not star:
        return method
    try:
        return float(factor) * method
    except ValueError:
        raise ArgumentError(f"method {text!r}: {factor!r} is no number") from None


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
