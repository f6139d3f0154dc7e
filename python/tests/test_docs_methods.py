"""The pages of docs/methods: one for every method, with its options, and code that compiles."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import kdswift as kd

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "methods"
NAMES = kd.methods.names()


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_named(name):
    rows = "\n".join(line for line in page(name).splitlines() if line.startswith("|"))
    missing = [f.name for f in fields(NAMES[name]) if f"`{f.name}`" not in rows]
    assert not missing, f"{name}.md has no row for {missing}"


@pytest.mark.parametrize("name", [n for n in NAMES if n != "chen2017"])
def test_defaults_are_those_of_the_class(name):
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (.*?) \|", page(name), re.M)
    shown = {option: default for options, default in rows for option in re.findall(r"\w+", options)}
    for field in fields(NAMES[name]):
        text = f'"{field.default}"' if isinstance(field.default, str) else str(field.default)
        assert shown[field.name] == text, f"{name}.md: {field.name} is {text}"


@pytest.mark.parametrize("name", NAMES)
def test_there_is_an_example_of_the_method(name):
    code = blocks(page(name))
    assert code and any(f"kd.methods.{NAMES[name].__name__}(" in one for one in code)


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_code_compiles_and_files_and_links_exist(path):
    text = path.read_text()
    for code in blocks(text):
        ast.parse(code)
    for name in re.findall(r"`((?:Sources|python|examples|tools|benchmarks)/[^`*\s]+)`", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_calls_of_methods_are_possible(path):
    """Every ``kd.methods.NAME(…)`` in code has arguments that the class takes."""
    for code in blocks(path.read_text()):
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).removeprefix("kd.methods.")
            cls = getattr(kd.methods, name, None)
            if cls not in NAMES.values() or name == ast.unparse(call.func):
                continue
            known = {field.name for field in fields(cls)}
            unknown = [one.arg for one in call.keywords if one.arg not in known]
            assert not unknown, f"{name} has no {unknown}"


def test_the_index_lists_every_method():
    index = (PAGES / "README.md").read_text()
    for name in NAMES:
        assert f"| `{name}` |" in index and f"({name}.md)" in index, name
    assert index.index("<!-- methods: begin -->") < index.index("<!-- methods: end -->")
    assert "docs/methods/README.md" in (ROOT / "README.md").read_text()
