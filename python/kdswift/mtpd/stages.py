"""The folder of a progressive run: which stage it is in, and what the finished ones left.

stages.json            settings, and which stages are done
stage-1-NAME/ …        the folder of a run each, see `kdswift.checkpoint`
last.safetensors       the student after the last finished stage
results.csv, curves.png   all stages in a row
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from .._files import write_text
from ..checkpoint import CHECKPOINT, PREVIOUS, RunFolder, check_settings
from ..errors import ArgumentError, FormatError
from ..history import read_rows
from ..modelfile import load, rebuild
from .matrix import read_json

STATE = "stages.json"
_KIND = "mtpd stages"
_LEFT = (CHECKPOINT, PREVIOUS, "best.safetensors", "last.safetensors", "results.csv", "steps.csv")


class StageFolder:
    """The files of a progressive run.

    done : stages that are finished;  settings : of the whole run, as plain data
    """

    def __init__(self, path: str | os.PathLike, names: list[str], settings: dict[str, Any]) -> None:
        self.path, self.settings = Path(path), json.loads(json.dumps(settings))
        if self.path.exists() and not self.path.is_dir():
            raise ArgumentError(f"out: {self.path} is a file, expected a folder")
        self.folders = [
            self.path / f"stage-{i}-{safe_name(name)}" for i, name in enumerate(names, 1)
        ]
        self.done = 0

    def open(self, resume: Any) -> None:
        """Find out what is done; with ``resume=False`` remove what an earlier run left."""
        state = self.path / STATE
        if resume is False:
            self._clear()
        elif state.exists():
            self._read(state)
        elif resume is True:
            raise ArgumentError(f"resume=True: {self.path} holds no {STATE}")
        elif any((folder / CHECKPOINT).exists() for folder in self.path.glob("stage-*")):
            raise ArgumentError(
                f"out: {self.path} holds stages but no {STATE}; choose another out=, or "
                "resume=False to start over"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._write()

    def finish(self, stage: int) -> None:
        """Note that a stage is done."""
        self.done = stage + 1
        self._write()

    def weights(self, stage: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The student's tensors and lineage at the end of a finished stage."""
        folder = self.folders[stage]
        try:
            model = load(folder / "last.safetensors")
        except FormatError as error:
            found = RunFolder(folder).find("auto")
            if found is None:
                raise error
            model = rebuild(found[0].model, found[0].description, str(found[1]))
        return model.state_dict(), model.lineage

    def rows(self, stage: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Epoch rows and step rows of a stage."""
        everything = 1 << 62
        folder = self.folders[stage]
        return tuple(read_rows(folder / f, everything) for f in ("results.csv", "steps.csv"))  # type: ignore[return-value]

    def _read(self, state: Path) -> None:
        data = read_json(state)
        if not isinstance(data, dict) or data.get("kind") != _KIND:
            raise FormatError(f"{state}: is no state of a progressive run")
        try:
            settings, done = data["settings"], int(data["done"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{state}: {error} is missing or wrong") from None
        check_settings(settings, self.settings, state)
        if not 0 <= done <= len(self.folders):
            raise FormatError(f"{state}: {done} of {len(self.folders)} stages are done")
        self.done = done

    def _write(self) -> None:
        stages = [
            {"folder": folder.name, "done": i < self.done} for i, folder in enumerate(self.folders)
        ]
        data = {"kind": _KIND, "done": self.done, "stages": stages, "settings": self.settings}
        write_text(self.path / STATE, json.dumps(data, indent=1))

    def _clear(self) -> None:
        """Nothing of an earlier run may be taken for this one's; the state goes first, so that
        what is half removed is not continued."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / STATE).unlink()
        for folder in (self.path, *self.path.glob("stage-*")):
            for name in _LEFT:
                with contextlib.suppress(FileNotFoundError):
                    (folder / name).unlink()


def safe_name(name: str) -> str:
    """A name that may be part of a file's."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "teacher"
