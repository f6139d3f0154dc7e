"""A small XML reader that remembers the line of every element, for messages about bad files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from xml.parsers import expat

from ..errors import FormatError


@dataclass
class Element:
    """One XML element: tag, text in front of the first child, children, and where it began."""

    tag: str
    file: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """Direct children with this tag."""
        return [c for c in self.children if c.tag == tag]

    def find(self, tag: str) -> Element | None:
        """The first direct child with this tag, or None."""
        return next((c for c in self.children if c.tag == tag), None)

    def child(self, tag: str) -> Element:
        """The direct child with this tag; FormatError when there is none."""
        found = self.find(tag)
        if found is None:
            raise self.error(f"<{self.tag}> has no <{tag}>")
        return found

    def number(self) -> float:
        """The text as a finite number; FormatError otherwise."""
        try:
            value = float(self.text)
        except ValueError:
            value = float("nan")
        if value != value or abs(value) == float("inf"):
            raise self.error(f"<{self.tag}> is {self.text.strip()!r}, not a number")
        return value

    def error(self, message: str) -> FormatError:
        """A FormatError that names the file and this element's line."""
        return FormatError(f"{self.file}, line {self.line}: {message}")


def read_xml(path: str | os.PathLike) -> Element:
    """The root element of a file.

    Raises ``FormatError`` with file and line for a missing, empty, truncated or malformed
    file, and for one that declares entities (no data set needs them, and they can be made
    to fill the memory).
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise FormatError(f"{name}: cannot read the annotation: {error.strerror}") from error
    return _Builder(name).parse(data)


class _Builder:
    def __init__(self, name: str):
        self.name = name
        self.root: Element | None = None
        self.open: list[Element] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.EntityDeclHandler = self.entity

    def parse(self, data: bytes) -> Element:
        try:
            self.parser.Parse(data, True)
        except expat.ExpatError as error:
            what = expat.ErrorString(error.code)
            raise FormatError(
                f"{self.name}, line {error.lineno}: broken or truncated XML: {what}"
            ) from error
        except (LookupError, ValueError) as error:  # unknown or wrong encoding
            raise FormatError(f"{self.name}: cannot read the XML: {error}") from error
        assert self.root is not None  # expat reports a file without an element
        return self.root

    def start(self, tag: str, attributes: dict) -> None:
        element = Element(tag, self.name, self.parser.CurrentLineNumber)
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def end(self, tag: str) -> None:
        self.open.pop()

    def characters(self, text: str) -> None:
        if self.open and not self.open[-1].children:
            self.open[-1].text += text

    def entity(self, *arguments: object) -> None:
        raise FormatError(
            f"{self.name}, line {self.parser.CurrentLineNumber}: entity declarations are refused"
        )
