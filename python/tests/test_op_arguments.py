"""Every operation of the engine with odd tensors and attributes: an error or a result, no crash."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from typing import Any

import numpy as np

import kdswift as kd
from kdswift import _apply
from kdswift.tensors import Tensor, apply_all

# The address space is limited below, so that large sizes meet an allocation that fails.
ADDRESS_SPACE = 4 << 30
NUMBERS = [0, 1, -1, 3, 2**31, 2**62, -(2**63)]


def odd_tensors() -> list[Tensor]:
    random = np.random.default_rng(1)
    shapes = [(), (0,), (3,), (2, 3), (3, 4), (0, 4), (4, 0), (2, 3, 4), (1, 2, 3, 4), (2, 3, 0, 2)]
    made = [kd.tensor(random.standard_normal(shape)) for shape in shapes]
    made.append(apply_all("blocked", [kd.tensor(random.standard_normal((1, 5, 4, 3)))])[0])
    made += [kd.tensor(random.standard_normal((2, 5))), kd.tensor([np.nan, np.inf, -np.inf])]
    made += [kd.tensor([0, 2, 1]), kd.tensor([[0, -1], [5, 2**62]]), kd.tensor(-(2**63))]
    made.append(kd.tensor(np.ones((1,) * 8)))
    for one in made[::2]:
        if one.dtype == np.float32 and not one.requires_grad:
            one.requires_grad = True
    return made


def odd_attributes(defaults: dict[str, Any]) -> list[dict[str, Any]]:
    """The defaults, and each key with values of the right and of wrong kinds."""
    out: list[dict[str, Any]] = [{}]
    for key, value in defaults.items():
        if isinstance(value, bool):
            out += [{key: not value}, {key: 3}]
        elif isinstance(value, int | float) or value is None:
            out += [{key: number} for number in NUMBERS] + [{key: "x"}, {key: 1e300}, {key: [1]}]
        elif isinstance(value, str):
            out += [{key: "x"}, {key: "sum"}, {key: "none"}, {key: "int64"}, {key: "bilinear"}]
        if isinstance(value, list) or value is None:
            out += [{key: [number] * n} for n in (1, 2, 4) for number in NUMBERS]
            out += [{key: []}, {key: [0, 1, 2, 3]}, {key: [2, 1, 1, 0]}, {key: [-1, 0]}]
    return out


def try_everything() -> None:
    """Runs in a process of its own; the last line printed names the operation that crashed."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    tensors = odd_tensors()
    for name, entry in _apply.describe_ops().items():
        print(name, flush=True)
        fewest, most = entry["min_inputs"], entry["max_inputs"] or 3
        for count in range(fewest, min(most, 3) + 1):
            groups = list(itertools.product(tensors, repeat=count))
            for number, inputs in enumerate(groups):
                # With three inputs there are thousands of combinations: every seventh will do.
                if count == 3 and number % 7:
                    continue
                options = odd_attributes(entry["attributes"])
                # All attributes for some inputs, one set for each of the others.
                chosen = (
                    options if number % 11 == 0 and count < 3 else [options[number % len(options)]]
                )
                for attributes in chosen:
                    attempt(name, inputs, attributes)


def attempt(name: str, inputs: tuple[Tensor, ...], attributes: dict[str, Any]) -> None:
    try:
        results = apply_all(name, inputs, **attributes)
    except kd.KDSError as error:
        assert str(error), name
        return
    for result in results:
        if result.requires_grad:
            try:
                result.backward(np.ones(result.shape))
            except kd.KDSError as error:
                raise AssertionError(
                    f"{name} of {[i.shape for i in inputs]} with {attributes}: {error}"
                ) from None


def test_odd_arguments_never_crash():
    code = "import test_op_arguments; test_op_arguments.try_everything()"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", code],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, f"exit {done.returncode} at {last}\n{done.stderr[-3000:]}"
    assert len(done.stdout.split()) == len(_apply.op_names())
