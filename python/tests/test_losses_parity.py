"""Feature-map losses beside PyTorch in double precision (generate_feature_losses.py).

With PyTorch installed, the cases of tools/parity are measured as well.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import kdswift as kd
from kdswift import losses

HERE = Path(__file__).resolve().parent
FIXTURE = HERE / "fixtures/feature_losses.npz"
MAPS = {
    "feature_matching": losses.feature_matching,
    "fitnets": losses.fitnets,
    "fitnets_raw": lambda s, t: losses.fitnets(s, t, normalize=False),
    "attention_code": losses.attention_transfer,
    "attention_paper": lambda s, t: losses.attention_transfer(s, t, "paper"),
    "cwd": losses.cwd,
    "cwd_ce": lambda s, t: losses.cwd(s, t, 4.0, "ce"),
    "pkd": losses.pkd,
}


@pytest.fixture(scope="module")
def arrays():
    with np.load(FIXTURE) as file:
        return dict(file)


def compare(arrays, key, loss, learned):
    loss.backward()
    # Single against double precision, sums of up to 800 terms.
    assert loss.item() == pytest.approx(float(arrays[f"{key}/value"]), rel=2e-6, abs=1e-9), key
    for name, tensor in learned.items():
        wanted = arrays[f"{key}/{name}"]
        found = tensor.grad.numpy()
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max() + 1e-9, (key, name)


@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize("name", MAPS)
def test_losses_of_two_maps(name, shape, arrays):
    student = kd.tensor(arrays[f"{shape}/student"], requires_grad=True)
    loss = MAPS[name](student, arrays[f"{shape}/teacher"])
    compare(arrays, f"{shape}/{name}", loss, {"student": student})


def inputs_of(arrays, key, prefix):
    """The inputs of a case; student and what the prefix names require gradients."""
    start = f"{key}/input/"
    return {
        name.removeprefix(start): kd.tensor(
            value, requires_grad=name.removeprefix(start).startswith(("student", prefix))
        )
        for name, value in arrays.items()
        if name.startswith(start)
    }


def parts(inputs, prefix):
    return {
        name.removeprefix(prefix): value
        for name, value in inputs.items()
        if name.startswith(prefix)
    }


def test_fgd(arrays):
    inputs = inputs_of(arrays, "fgd", "context.")
    boxes = [arrays[f"fgd/boxes/{index}"] for index in range(2)]
    context = parts(inputs, "context.")
    loss = losses.fgd(
        *(inputs["student"], inputs["teacher"], boxes, arrays["fgd/sizes"], context), relation=1e-3
    )
    learned = {name: value for name, value in inputs.items() if value.requires_grad}
    assert len(learned) == 15
    compare(arrays, "fgd", loss, learned)


def test_mgd(arrays):
    inputs = inputs_of(arrays, "mgd", "generator.")
    generator = parts(inputs, "generator.")
    loss = losses.mgd(inputs["student"], inputs["teacher"], inputs["mask"], generator)
    learned = {name: value for name, value in inputs.items() if value.requires_grad}
    assert len(learned) == 5
    compare(arrays, "mgd", loss, learned)


def test_the_cases_of_the_table():
    pytest.importorskip("torch")
    folder = str(HERE.parents[1] / "tools/parity")
    sys.path.insert(0, folder)
    try:
        table = importlib.import_module("table")
        far = [
            (case.name, case.source, difference)
            for case in table.collect()
            if not table.is_close(difference := table.measure(case))
        ]
    finally:
        sys.path.remove(folder)
    assert not far
