"""The tensor: the tape, and the lifetime of what the engine holds."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from measure import resident_memory

import kdswift as kd
from kdswift import _apply, runtime
from kdswift._library import lib
from kdswift._signatures import kds_tensor
from kdswift.tensors import apply


@pytest.fixture
def random():
    return np.random.default_rng(5)


# Gradients


def test_gradients_accumulate_until_forgotten():
    x = kd.tensor([1.0, 2.0], requires_grad=True)
    assert x.grad is None
    (x * x).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [4, 8]
    x.zero_grad()
    assert x.grad is None
    with pytest.raises(kd.ArgumentError, match="only None"):
        x.grad = 1


def test_a_gradient_may_be_given_for_the_result():
    x = kd.tensor([1.0, 2.0], requires_grad=True)
    (x * 3).backward([1.0, 10.0])
    assert x.grad.tolist() == [3, 30]
    with pytest.raises(kd.ShapeError, match=r"seed of shape \[3\] for a tensor of shape \[2\]"):
        (x * 3).backward(np.ones(3))
    with pytest.raises(kd.ShapeError, match=r"scalar, not of shape \[2\]"):
        (x * 3).backward()


def test_backward_needs_a_tape():
    with pytest.raises(kd.ArgumentError, match="not on the tape"):
        kd.tensor(1.0).backward()
    x = kd.tensor([1.0], requires_grad=True)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(kd.KDSError, match="already used"):
        loss.backward()


def test_gradients_only_where_they_can_be():
    with pytest.raises(kd.ArgumentError, match="only float32"):
        kd.tensor([1, 2], requires_grad=True)
    made = kd.tensor([1.0], requires_grad=True) * 2
    assert made.requires_grad
    with pytest.raises(kd.ArgumentError, match="made by an operation"):
        made.requires_grad = True


def test_detach_ends_the_tape():
    x = kd.tensor([2.0], requires_grad=True)
    y = (x * 3).detach()
    assert not y.requires_grad
    y.requires_grad = True
    (x * y).sum().backward()
    assert x.grad.tolist() == [6]
    assert y.grad.tolist() == [2]
    constant = kd.tensor([1.0])
    constant.detach().requires_grad = True
    assert not constant.requires_grad, "a detached tensor is a tensor of its own"


def test_no_grad_nests_and_decorates():
    x = kd.tensor([1.0], requires_grad=True)
    with kd.no_grad():
        with kd.no_grad():
            pass
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @kd.no_grad()
    def doubled(value):
        return value * 2

    assert not doubled(x).requires_grad
    with pytest.raises(KeyError), kd.no_grad():
        raise KeyError
    assert (x * 2).requires_grad


def test_no_grad_belongs_to_its_thread():
    x = kd.tensor([1.0], requires_grad=True)
    seen = []
    with kd.no_grad():
        worker = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        worker.start()
        worker.join()
    assert seen == [True]


def test_value_and_grad():
    function = kd.value_and_grad(lambda a, b, power=1: ((a * b) ** power).sum(), argnums=(0, 1))
    value, (to_a, to_b) = function(np.array([1.0, 2.0]), np.array([3.0, 4.0]), power=2)
    assert value == 9 + 64
    assert to_a.tolist() == [18, 64]
    assert to_b.tolist() == [6, 32]
    assert isinstance(to_a, np.ndarray) and to_a.dtype == np.float32
    unused = kd.value_and_grad(lambda a, b: b.sum())(np.ones((2, 2)), np.ones(3))
    assert unused[0] == 3 and unused[1].tolist() == [[0, 0], [0, 0]]


def test_value_and_grad_says_what_is_wrong():
    with pytest.raises(kd.ShapeError, match=r"shape \(2,\), expected one number"):
        kd.value_and_grad(lambda a: a * 2)(np.ones(2))
    with pytest.raises(kd.ArgumentError, match="no argument 1"):
        kd.value_and_grad(lambda a: a.sum(), argnums=1)(np.ones(2))
    with pytest.raises(kd.ArgumentError, match="integers"):
        kd.value_and_grad(lambda a: a.sum())(np.arange(2))
    with pytest.raises(kd.ArgumentError, match="returned float"):
        kd.value_and_grad(lambda a: 1.0)(np.ones(2))


def test_a_long_tape_is_released_without_recursion():
    x = kd.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.tolist() == [1]


# Handles, threads, memory


@pytest.mark.parametrize("value", [None, 8, 0x5EADBEEF0, 2**64 - 16])
def test_garbage_handles_are_refused(value):
    handle = kds_tensor(value)
    for call in (
        lambda: lib.kds_tensor_zero_grad(handle),
        lambda: lib.kds_tensor_backward(handle, None),
        lambda: _apply.apply_handles("exp", [handle], {}),
    ):
        with pytest.raises(kd.ArgumentError, match="handle|NULL"):
            call()


def test_a_released_handle_is_refused():
    handle = kd.tensor(1.0)._handle
    gc.collect()
    with pytest.raises(kd.ArgumentError, match="not a live tensor handle"):
        lib.kds_tensor_zero_grad(handle)


def test_operations_say_what_they_do_not_know():
    x = kd.tensor([1.0])
    with pytest.raises(kd.ArgumentError, match="unknown operation"):
        apply("no such thing", [x])
    with pytest.raises(kd.ArgumentError, match="exp.*colour"):
        apply("exp", [x], colour=1)
    with pytest.raises(kd.ArgumentError, match="exp: takes 1 inputs, got 2"):
        apply("exp", [x, x])
    with pytest.raises(kd.ArgumentError, match="clamp: bad argument"):
        apply("clamp", [x], min=float("nan"))
    assert "conv2d" in _apply.op_names()
    assert _apply.describe_ops()["conv2d"]["attributes"]["groups"] == 1


def test_handles_end_with_their_tensors():
    before = runtime.live_handles()
    x = kd.tensor(np.ones(10), requires_grad=True)
    y = [x * i for i in range(10)]
    assert runtime.live_handles() == before + 11
    del y
    gc.collect()
    assert runtime.live_handles() == before + 1


def test_memory_does_not_grow(threads):
    kd.set_num_threads(1)
    weights = kd.tensor(np.ones((128, 128)), requires_grad=True)

    def step() -> None:
        loss = (kd.cat([weights.relu() * 2, weights])[::2].exp() / 3).sum()
        loss.backward()
        weights.zero_grad()

    for _ in range(50):
        step()
    before = resident_memory()
    for _ in range(1000):
        step()
    # One leaked 64 KiB tensor a step would be 64 MiB.
    assert resident_memory() - before < 20 * 2**20


def test_many_threads_at_once(random):
    x = random.standard_normal((64, 64)).astype(np.float32)
    expected = kd.value_and_grad(lambda t: (t @ t).exp().mean())(x / 64)
    failures = []

    def work() -> None:
        for _ in range(20):
            value, gradient = kd.value_and_grad(lambda t: (t @ t).exp().mean())(x / 64)
            if value != expected[0] or not np.array_equal(gradient, expected[1]):
                failures.append(value)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
