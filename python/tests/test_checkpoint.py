"""Checkpoints and model files: whatever happens to them, a clear error and a way on."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tiny import QUIET, detector, same, scenes

import kdswift as kd
from kdswift import _files
from kdswift.checkpoint import read_checkpoint
from kdswift.errors import FormatError, KDSError

CUTS = 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    _train(folder)
    return folder


def _train(folder, epochs=2, **options):
    model = detector(1)
    options = {"schedule": kd.Constant(), **QUIET, **options}
    model.fit(scenes(4), epochs, out=folder, seed=3, **options)
    return model


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of the run that may be damaged."""
    for path in finished.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def _positions(size, count=CUTS):
    return np.random.default_rng(0).integers(0, size, count).tolist()


def test_a_cut_at_any_byte_is_found(folder):
    path = folder / "checkpoint.safetensors"
    content = path.read_bytes()
    for length in [0, 1, 7, 8, 9, len(content) - 1, *_positions(len(content))]:
        path.write_bytes(content[:length])
        for read in (read_checkpoint, kd.load):
            with pytest.raises(FormatError, match=r"checkpoint\.safetensors"):
                read(path)


def test_a_flipped_bit_is_found(folder):
    path = folder / "checkpoint.safetensors"
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    for position in [*_positions(len(content)), *_positions(8), *_positions(header)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"checkpoint\.safetensors"):
            read_checkpoint(path)
    path.write_bytes(content)
    assert read_checkpoint(path).step == 4


def test_model_files_are_checked_too(folder):
    path = folder / "last.safetensors"
    content = path.read_bytes()
    for length in _positions(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"last\.safetensors"):
            kd.load(path)
    path.write_bytes(content + b"x")
    with pytest.raises(FormatError, match=r"last\.safetensors"):
        kd.load(path)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder):
    reference = _train(folder / "reference", 3)
    (folder / "checkpoint.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match=r"checkpoint\.safetensors.*step 2"):
        model = _train(folder, 3)
    assert same(reference, model)


def test_two_damaged_checkpoints_are_an_error(folder):
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
        (folder / name).write_bytes(b"torn")
    with pytest.raises(FormatError, match=r"checkpoint\.safetensors"):
        _train(folder, 3)
    _train(folder, 1, resume=False)
    assert read_checkpoint(folder / "checkpoint.safetensors").step == 2


def test_a_missing_checkpoint_falls_back_quietly(folder, recwarn):
    (folder / "checkpoint.safetensors").unlink()
    reference = _train(folder / "reference", 3)
    assert same(reference, _train(folder, 3))
    assert not [w for w in recwarn if "checkpoint" in str(w.message)]


def test_a_torn_results_file_does_not_hinder(folder):
    reference = _train(folder / "reference", 3)
    text = (folder / "results.csv").read_text()
    (folder / "results.csv").write_text(text[: len(text) - 9])
    (folder / "steps.csv").unlink()
    assert same(reference, _train(folder, 3))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    model = detector(1)
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", _refuse)
    with pytest.raises(KDSError, match=r"m\.safetensors: cannot be written: no space"):
        detector(2).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def _refuse(*_arguments):
    raise OSError(28, "no space left")


def test_out_may_not_be_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KDSError, match="file"):
        _train(tmp_path / "file", 1)
    with pytest.raises(KDSError, match="file"):
        detector(1).save(tmp_path / "file" / "m.safetensors")


def test_files_of_other_kinds_are_told_apart(folder):
    with pytest.raises(FormatError, match="holds no checkpoint"):
        read_checkpoint(folder / "last.safetensors")
    _files.write_tensors(
        folder / "other.safetensors", {"a": np.zeros(2, np.float32)}, {"kind": "x"}
    )
    with pytest.raises(FormatError, match=r"other\.safetensors: holds 'x'"):
        kd.load(folder / "other.safetensors")


def test_a_checkpoint_gives_weights(folder):
    model = detector(5)
    assert model.load_state_dict(folder / "checkpoint.safetensors").complete
    assert same(model, kd.load(folder / "last.safetensors"))


def test_a_model_of_another_version_is_refused(folder):
    tensors, metadata = _files.read_tensors(folder / "last.safetensors")
    metadata["configuration"]["from_the_future"] = 1
    _files.write_tensors(folder / "new.safetensors", tensors, metadata)
    with pytest.raises(FormatError, match=r"new\.safetensors.*from_the_future"):
        kd.load(folder / "new.safetensors")
    tensors.pop(next(iter(tensors)))
    metadata["configuration"].pop("from_the_future")
    _files.write_tensors(folder / "new.safetensors", tensors, metadata)
    with pytest.raises(FormatError, match=r"new\.safetensors.*missing"):
        kd.load(folder / "new.safetensors")
