"""Every operation of the engine, with hostile attributes and shapes: a status, never a crash."""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from kdswift import _library
from kdswift import _signatures as signatures

INTEGERS = [-(2**63), -(2**31) - 1, -100, -2, -1, 0, 1, 2, 3, 7, 2**31, 2**62, 2**63 - 1]
REALS = [-1e308, -1.0, 0.0, 1e-300, 0.5, 1.0, 3.0, 1e308]
WORDS = ["", "mean", "sum", "none", "paper", "float32", "int64", "relu", "l1", "no such word"]
SHAPES = [(), (0,), (1,), (3,), (2, 3), (0, 4), (3, 4), (4, 1), (1, 2, 4, 4), (2, 3, 5, 5)]
SHAPES += [(0, 3, 4, 4), (2, 0, 4, 4), (4, 3, 1, 1), (3, 3, 2, 2), (2, 2, 3), (1, 2, 1, 2, 2)]
# Shapes that fit together, so that the attributes get their turn.
FITTING = {
    "binary_conv2d": [(2, 3, 5, 5), (4, 3, 2, 2), (4,)],
    "binary_filters": [(4, 3, 2, 2)],
    "conv2d": [(2, 3, 5, 5), (4, 3, 2, 2), (4,)],
    "conv_transpose2d": [(2, 3, 5, 5), (3, 4, 2, 2), (4,)],
    "deform_conv2d": [(2, 3, 5, 5), (2, 8, 4, 4), (4, 3, 2, 2), (4,), (2, 4, 4, 4)],
    "avg_pool2d": [(2, 3, 5, 5)],
    "max_pool2d": [(2, 3, 5, 5)],
    "linear": [(2, 3), (4, 3), (4,)],
    "cross_entropy": [(3, 4), (3,), (4,)],
    "weighted_soft_cross_entropy": [(3, 4), (3, 4), (4,)],
    "teacher_bounded_regression": [(3, 4), (3, 4), (3, 4)],
    "divergence": [(3, 4, 5), (3, 4, 5), (3,)],
    "distribution_focal": [(3, 4), (3,), (3,)],
    "highest_score": [(1, 2, 4, 4)],
    "log_iou": [(3, 4), (3, 4), (3,)],
    "nms": [(3, 4), (3,)],
    "pairwise_distance": [(3, 4)],
    "quality_focal": [(2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 4, 4)],
    "region_weights": [(1, 2, 4, 4), (3, 5)],
    "standardize_like": [(2, 3, 4, 4), (2, 3, 4, 4)],
    "match_boxes": [(3, 4), (5, 4)],
    "batched_nms": [(3, 4), (3,), (3,)],
    "roi_align": [(1, 2, 4, 4), (3, 5)],
    "roi_pool": [(1, 2, 4, 4), (3, 5)],
    "ps_roi_pool": [(1, 18, 4, 4), (3, 5)],
    "interpolate": [(1, 2, 4, 4)],
    "batch_norm": [(2, 3, 5, 5), (3,), (3,), (3,), (3,)],
    "group_norm": [(2, 4, 4, 4), (4,), (4,)],
    "layer_norm": [(2, 3), (3,), (3,)],
}
ROUNDS = 100


def hostile(random_: random.Random, default: object) -> object:
    """A value that may be wrong, of the default's kind most of the time."""
    if random_.random() < 0.05:
        return random_.choice([None, "text", 1, 0.5, [], [[1]], {}, True])
    if isinstance(default, bool):
        return random_.random() < 0.5
    if isinstance(default, int):
        return random_.choice(INTEGERS)
    if isinstance(default, float):
        return random_.choice(REALS)
    if isinstance(default, str):
        return random_.choice(WORDS)
    if isinstance(default, list) or random_.random() < 0.4:
        return [random_.choice(INTEGERS) for _ in range(random_.randrange(6))]
    return random_.choice([*INTEGERS, *REALS])


def make_tensor(random_: random.Random, shape: tuple[int, ...]) -> signatures.kds_tensor:
    """Small numbers, sometimes with NaN and infinities, sometimes integers."""
    values = np.random.default_rng(random_.randrange(2**32)).uniform(-3, 6, shape)
    if random_.random() < 0.25:
        data, dtype = values.astype(np.int64), signatures.KDS_DTYPE_INT64
        if random_.random() < 0.2:
            data = data * 2**61
    else:
        data, dtype = np.asarray(values, np.float32), signatures.KDS_DTYPE_FLOAT32
        if data.size and random_.random() < 0.2:
            data.flat[0], data.flat[-1] = np.nan, np.inf
    data = np.ascontiguousarray(data)
    extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    handle = signatures.kds_tensor()
    _library.lib.kds_tensor_create(
        dtype, len(shape), extents, data.ctypes.data, ctypes.byref(handle)
    )
    if dtype == signatures.KDS_DTYPE_FLOAT32 and random_.random() < 0.5:
        _library.lib.kds_tensor_set_requires_grad(handle, 1)
    return handle


def choose_shapes(random_: random.Random, name: str, about: dict) -> list[tuple[int, ...]]:
    """The shapes of the inputs: fitting, alike, or anything."""
    if name in FITTING and random_.random() < 0.6:
        known = FITTING[name]
        return known[: random_.randint(min(about["min_inputs"], len(known)), len(known))]
    most = about["max_inputs"] or about["min_inputs"] + 2
    count = random_.randint(about["min_inputs"], most)
    if random_.random() < 0.4:
        return [random_.choice(SHAPES)] * count
    return [random_.choice(SHAPES) for _ in range(count)]


def one_call(random_: random.Random, name: str, about: dict) -> None:
    """One call of one operation; a result that is on the tape is also differentiated."""
    shapes = choose_shapes(random_, name, about)
    wrong = random_.choice([0.2, 0.7])
    attributes = {
        key: hostile(random_, default)
        for key, default in about["attributes"].items()
        if random_.random() < wrong
    }
    print(name, json.dumps(attributes), shapes, flush=True)
    tensors = [make_tensor(random_, shape) for shape in shapes]
    inputs = (signatures.kds_tensor * len(tensors))(*tensors)
    outputs = (signatures.kds_tensor * 16)()
    count = ctypes.c_int32()
    text = json.dumps(attributes).encode()
    try:
        _library.lib.kds_op_apply(
            name.encode(), text, inputs, len(tensors), 16, outputs, ctypes.byref(count)
        )
        for output in outputs[: count.value]:
            differentiate(output)
    except _library.KDSError as error:
        assert str(error), "an error without a message"
    for handle in [*inputs, *outputs]:
        _library.lib.kds_tensor_release(handle)


def differentiate(tensor: signatures.kds_tensor) -> None:
    """Backward with the result itself as the incoming gradient, when it is on the tape."""
    tracked = ctypes.c_int32()
    _library.lib.kds_tensor_is_tracked(tensor, ctypes.byref(tracked))
    if tracked.value:
        seed = signatures.kds_tensor()
        _library.lib.kds_tensor_detach(tensor, ctypes.byref(seed))
        try:
            _library.lib.kds_tensor_backward(tensor, seed)
        finally:
            _library.lib.kds_tensor_release(seed)


def call_every_operation(seed: int) -> None:
    """Runs in a process of its own; the last line printed names the call that crashed."""
    for name, about in json.loads(_library.lib.text("kds_op_describe")).items():
        random_ = random.Random(f"{seed} {name}")
        for _ in range(ROUNDS):
            one_call(random_, name, about)
    live = ctypes.c_int64()
    _library.lib.kds_live_handles(ctypes.byref(live))
    assert live.value == 0, f"{live.value} handles are still alive"


def test_hostile_calls_give_a_status_and_never_a_crash():
    code = "import test_boundary_ops; test_boundary_ops.call_every_operation(0)"
    # The limit turns a result of impossible size into an error at once, not into a full machine.
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34)); {code}"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, f"exit {done.returncode} at {last}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"no such key": 1}', b"\xff"])
def test_damaged_attributes_are_named(text):
    outputs = (signatures.kds_tensor * 1)()
    count = ctypes.c_int32()
    tensor = make_tensor(random.Random(1), (3,))
    with pytest.raises(_library.KDSError, match=r"relu|attributes"):
        _library.lib.kds_op_apply(b"relu", text, ctypes.byref(tensor), 1, 1, outputs, count)
    _library.lib.kds_tensor_release(tensor)
