"""The tensor: values in and out, operators, indexing, gradients, lifetime."""

from __future__ import annotations

import doctest
import gc
import importlib
import pickle
import threading

import numpy as np
import pytest

import kdswift as kd
from kdswift import _apply, runtime
from kdswift._library import lib
from kdswift._signatures import kds_tensor
from kdswift.tensors import apply


@pytest.fixture
def random():
    return np.random.default_rng(5)


def numeric_gradient(function, x: np.ndarray, step: float = 1e-2) -> np.ndarray:
    """Central differences in float32: with values of order 1, rounding is about 1e-7 / step = 1e-5
    and the cut-off error step^2 = 1e-4, so 2e-3 leaves room for sums of a few dozen terms."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        change = np.zeros_like(x)
        change[index] = step
        high, low = function(kd.tensor(x + change)), function(kd.tensor(x - change))
        gradient[index] = (float(high) - float(low)) / (2 * step)
    return gradient


def check_gradient(function, x: np.ndarray, tolerance: float = 2e-3) -> None:
    x = x.astype(np.float32)
    _, gradient = kd.value_and_grad(function)(x)
    expected = numeric_gradient(function, x)
    assert np.abs(expected).max() > 0.01, "the test sees no gradient"
    np.testing.assert_allclose(gradient, expected, atol=tolerance * max(1, np.abs(expected).max()))


# Values in


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (1.5, np.float32),
        (3, np.int64),
        (True, np.int64),
        ([[1.0, 2.0]], np.float32),
        ([1, 2], np.int64),
        ([], np.float32),
        (np.float64(2), np.float32),
        (np.arange(3, dtype=np.uint8), np.int64),
        (np.array([True, False]), np.int64),
        (np.arange(4, dtype=np.float16), np.float32),
        (np.arange(4, dtype=">f8"), np.float32),
        (np.zeros((0, 3), np.float64), np.float32),
        (np.arange(12.0).reshape(3, 4).T[::-1], np.float32),
    ],
)
def test_values_in(given, dtype):
    made = kd.tensor(given)
    expected = np.asarray(given)
    assert made.dtype == dtype
    assert made.shape == expected.shape
    np.testing.assert_array_equal(made.numpy(), expected.astype(dtype))
    assert made.tolist() == expected.astype(dtype).tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "dtype <U4"),
        (np.array([1j]), "dtype complex128"),
        (np.array([None]), "dtype object"),
        (object(), "dtype object"),
        (np.array(["2020-01-01"], "datetime64[D]"), "dtype datetime64"),
        (np.array([2**64 - 1], np.uint64), "does not fit into int64"),
    ],
)
def test_other_types_are_refused_by_name(given, message):
    with pytest.raises(kd.ArgumentError, match=message):
        kd.tensor(given)


def test_ragged_lists_and_too_many_axes_are_shape_errors():
    with pytest.raises(kd.ShapeError, match="not a rectangular array"):
        kd.tensor([[1, 2], [3]])
    with pytest.raises(kd.KDSError, match="rank of dims is 9"):
        kd.tensor(np.zeros((1,) * 9))
    with pytest.raises(kd.ShapeError, match="unsqueeze.*more than 8 axes"):
        kd.tensor(np.zeros((1,) * 8)).unsqueeze(0)


def test_the_values_are_copied():
    source = np.ones(3, np.float32)
    made = kd.tensor(source)
    source[:] = 7
    assert made.tolist() == [1, 1, 1]


# Values out


def test_numpy_is_a_copy_and_the_view_is_read_only():
    made = kd.tensor([1.0, 2.0])
    copy = made.numpy()
    copy[:] = 9
    view = made.numpy(copy=False)
    assert made.tolist() == [1, 2]
    assert view.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5
    del made
    gc.collect()
    assert view.tolist() == [1, 2], "the view must keep the memory"


def test_array_protocol():
    made = kd.tensor([1.0, 2.0])
    assert np.asarray(made).dtype == np.float32
    assert np.array(made, dtype=np.float64).tolist() == [1, 2]
    assert np.array(made).flags.writeable
    np.testing.assert_allclose(made, [1, 2])
    with pytest.raises(ValueError, match="needs a copy"):
        made.__array__(np.float64, copy=False)


@pytest.mark.parametrize("values", [1.5, [1, 2], [[1.0], [2.0]], np.zeros((0, 2))])
def test_dlpack_to_numpy(values):
    made = kd.tensor(values)
    there = np.from_dlpack(made)
    np.testing.assert_array_equal(there, made.numpy())
    assert there.dtype == made.dtype
    assert kd.tensor(there).tolist() == made.tolist()


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 2)])
def test_unused_dlpack_capsules_free_their_memory(version):
    before = lib_bytes_in_use()
    for _ in range(50):
        kd.tensor(np.zeros(100_000)).__dlpack__(max_version=version)
    gc.collect()
    assert lib_bytes_in_use() - before < 10 * 400_000


def lib_bytes_in_use() -> int:
    """Resident memory; the engine's pool reuses blocks, so a leak shows as growth."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_dlpack_refuses_other_devices_and_streams():
    made = kd.tensor([1.0])
    assert made.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError, match="dl_device"):
        made.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="stream"):
        made.__dlpack__(stream=1)


def test_masks_travel_as_booleans():
    mask = kd.tensor([1.0, 2.0]) > 1.5
    assert mask.dtype == np.bool_
    assert np.from_dlpack(mask).dtype == np.bool_
    assert mask.numpy().tolist() == [False, True]


def test_torch_both_ways():
    torch = pytest.importorskip("torch")
    made = kd.tensor([[1.0, 2.0], [3.0, 4.0]])
    there = torch.from_dlpack(made)
    assert there.tolist() == made.tolist()
    assert kd.tensor(there * 2).tolist() == [[2, 4], [6, 8]]
    assert kd.tensor(torch.arange(3)).dtype == np.int64
    assert kd.tensor(torch.ones(2, dtype=torch.float64)).dtype == np.float32
    with pytest.raises(kd.ArgumentError, match="requires grad"):
        kd.tensor(torch.ones(2, requires_grad=True))
    with pytest.raises(kd.ArgumentError, match="complex64"):
        kd.tensor(torch.ones(2, dtype=torch.complex64))


def test_a_foreign_array_comes_in_through_dlpack():
    class Foreign:
        def __dlpack__(self, **options):
            return np.arange(3.0).__dlpack__(**options)

        def __dlpack_device__(self):
            return (1, 0)

    assert kd.tensor(Foreign()).tolist() == [0, 1, 2]


def test_a_failing_foreign_array_is_an_argument_error():
    class OnAnotherDevice:
        dtype = "float32"

        def __dlpack__(self, **options):
            raise BufferError("memory of a GPU")

        def __dlpack_device__(self):
            return (1, 0)

    with pytest.raises(kd.ArgumentError, match=r"OnAnotherDevice of dtype float32.*GPU"):
        kd.tensor(OnAnotherDevice())


def test_scalars_become_python_numbers():
    assert kd.tensor(2.5).item() == 2.5
    assert isinstance(kd.tensor(2**60).item(), int)
    assert kd.tensor(2**60).item() == 2**60
    assert float(kd.tensor([3.0])) == 3
    assert int(kd.tensor([3.7])) == 3
    assert [10, 20, 30][kd.tensor(1)] == 20
    assert bool(kd.tensor(2.0) > 1)
    assert f"{kd.tensor(1.25):.1f}" == "1.2"
    with pytest.raises(kd.ShapeError, match=r"not one of \[2\]"):
        kd.tensor([1.0, 2.0]).item()
    with pytest.raises(kd.ShapeError, match=r"shape \(2,\) is ambiguous"):
        bool(kd.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="no index"):
        [1][kd.tensor(0.0)]


def test_repr_shows_values_shape_and_gradient():
    assert repr(kd.tensor([1.0, 2.5])) == "tensor([1. , 2.5], shape=(2,))"
    assert repr(kd.tensor([1, 2])) == "tensor([1, 2], shape=(2,), dtype=int64)"
    assert repr(kd.tensor(1.0, requires_grad=True)).endswith("shape=(), requires_grad=True)")
    assert len(repr(kd.tensor(np.zeros((1000, 1000))))) < 1000


def test_length_iteration_and_pickle():
    made = kd.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(made) == 2
    assert [row.tolist() for row in made] == [[1, 2], [3, 4]]
    again = pickle.loads(pickle.dumps(made))
    assert again.tolist() == made.tolist()
    with pytest.raises(TypeError, match="no axes"):
        len(kd.tensor(1.0))
    with pytest.raises(TypeError, match="no axes"):
        iter(kd.tensor(1.0))


# Operators

OPERATORS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2,))])
def test_arithmetic_and_its_gradient(name, shapes, random):
    function = OPERATORS[name]
    a, b = (random.uniform(0.5, 2, shape).astype(np.float32) for shape in shapes)
    # One rounding of float32 (6e-8), some more inside pow.
    np.testing.assert_allclose(function(kd.tensor(a), kd.tensor(b)), function(a, b), rtol=2e-6)
    weights = random.uniform(0.5, 1, np.broadcast_shapes(*shapes)).astype(np.float32)
    check_gradient(lambda x: (function(x, b) * weights).sum(), a)
    check_gradient(lambda x: (function(a, x) * weights).sum(), b)


@pytest.mark.parametrize("name", OPERATORS)
def test_numbers_and_arrays_on_either_side(name):
    function, x = OPERATORS[name], np.array([1.0, 2.0], np.float32)
    made = kd.tensor(x)
    for other in (3, 2.5, np.float64(2), np.array([2.0, 0.5]), [2.0, 3.0]):
        expected = np.asarray(other, np.float64)
        for result, wanted in (
            (function(made, other), function(x.astype(np.float64), expected)),
            (function(other, made), function(expected, x.astype(np.float64))),
        ):
            assert isinstance(result, kd.Tensor)
            np.testing.assert_allclose(result, wanted, rtol=2e-6)


def test_numbers_that_json_has_no_word_for():
    x = kd.tensor([1.0, -1.0])
    assert (x * float("inf")).tolist() == [np.inf, -np.inf]
    assert np.isnan((x + float("nan")).numpy()).all()
    assert (x * 1e300).tolist() == [np.inf, -np.inf]


def test_matmul(random):
    a, b = random.standard_normal((3, 4)), random.standard_normal((4, 2))
    np.testing.assert_allclose(kd.tensor(a) @ kd.tensor(b), a @ b, atol=1e-5)
    np.testing.assert_allclose(a @ kd.tensor(b), a @ b, atol=1e-5)
    check_gradient(lambda x: ((x @ b) ** 2).sum(), a)
    with pytest.raises(kd.ShapeError, match=r"matmul.*\[3, 4\].*\[3, 4\]"):
        kd.tensor(a) @ kd.tensor(a)


def test_integers_stay_integers_among_themselves():
    labels = kd.tensor([1, 2**40])
    assert (labels + 1).dtype == np.int64
    assert (labels + 1).tolist() == [2, 2**40 + 1]
    assert (labels == 2**40).tolist() == [False, True]
    assert labels.sum().item() == 2**40 + 1
    assert (labels * 0.5).dtype == np.float32


def test_comparisons_and_masks():
    x = kd.tensor([1.0, 2.0, 3.0, float("nan")])
    assert (x > 1.5).tolist() == [False, True, True, False]
    assert (x <= 2).tolist() == [True, True, False, False]
    assert (x != x).tolist() == [False, False, False, True]
    assert (1.5 < x).tolist() == [False, True, True, False]
    assert (~(x > 1.5) | (x == 3)).tolist() == [True, False, True, True]
    assert ((x > 1) & (x < 3)).tolist() == [False, True, False, False]
    assert (x > 0).any() and not (x > 0).all()
    assert (kd.tensor([1.0, 2.0]) > 1).sum().item() == 1


def test_numpy_functions_stay_on_the_tape():
    x = kd.tensor([1.0, 4.0], requires_grad=True)
    np.sqrt(np.multiply(np.ones(2), x)).sum().backward()
    assert x.grad.tolist() == [0.5, 0.25]
    assert isinstance(np.floor(kd.tensor([1.5])), np.ndarray)


def test_shapes_that_do_not_broadcast_are_named():
    a, b = kd.tensor(np.ones((2, 3))), kd.tensor(np.ones((2, 2)))
    for name, function in OPERATORS.items():
        with pytest.raises(kd.ShapeError, match=rf"{name}: shapes \[2, 3\] and \[2, 2\]"):
            function(a, b)
    with pytest.raises(kd.ShapeError, match=r"less: shapes \(2, 3\) and \(2, 2\)"):
        _ = a < b


# Functions

UNARY = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "square": np.square,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_every_element(name, random):
    low = 0.3 if name in ("log", "sqrt") else -2
    x = random.uniform(low, 2, (3, 5)).astype(np.float32)
    x[np.abs(x) < 0.1] = 0.5  # away from the kinks of abs and relu
    method = getattr(kd.tensor(x), name)()
    # The engine's own exp and log are within a few units in the last place.
    np.testing.assert_allclose(method, UNARY[name](x.astype(np.float64)), rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(method, getattr(kd, name)(x))
    check_gradient(lambda t: (getattr(t, name)() * np.arange(15.0).reshape(3, 5)).sum() / 15, x)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), [1]])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min"])
def test_reductions(name, axis, keepdims, random):
    x = (1 + random.permutation(24)).reshape(2, 3, 4).astype(np.float32) / 4
    axes = tuple(axis) if isinstance(axis, list) else axis
    result = getattr(kd.tensor(x), name)(axis, keepdims)
    expected = getattr(np, name)(x.astype(np.float64), axis=axes, keepdims=keepdims)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    check_gradient(lambda t: (getattr(t, name)(axis, keepdims) ** 2).sum() / 20, x)


def test_variance_of_a_sample():
    x = kd.tensor([1.0, 2.0, 4.0])
    np.testing.assert_allclose(x.var(ddof=1), np.var([1, 2, 4], ddof=1), rtol=1e-6)
    with pytest.raises(kd.ArgumentError, match="ddof is 2"):
        x.var(ddof=2)


def test_positions_of_extremes():
    x = kd.tensor([[1.0, 5.0, 5.0], [4.0, 0.0, -1.0]])
    assert x.argmax().item() == 1
    assert x.argmax(axis=1).tolist() == [1, 0]
    assert x.argmin(axis=0).tolist() == [0, 1, 1]
    assert x.argmax(axis=1).dtype == np.int64


def test_rearranging(random):
    x = random.standard_normal((2, 3, 4)).astype(np.float32)
    made = kd.tensor(x)
    for result, expected in (
        (made.reshape(6, -1), x.reshape(6, -1)),
        (made.reshape((4, 6)), x.reshape(4, 6)),
        (made.permute(2, 0, 1), x.transpose(2, 0, 1)),
        (made.transpose(0, 2), x.swapaxes(0, 2)),
        (made.transpose(), x.T),
        (made.T, x.T),
        (made.flatten(), x.reshape(-1)),
        (made.unsqueeze(1), x[:, None]),
        (made[:, :1].squeeze(1), x[:, 0]),
    ):
        np.testing.assert_array_equal(result, expected)
    check_gradient(lambda t: (t.permute(2, 0, 1).reshape(4, 6).T ** 2).sum() / 4, x)
    with pytest.raises(kd.ShapeError, match=r"reshape: \[2, 3, 4\]"):
        made.reshape(5, 5)


def test_joining(random):
    a, b = random.standard_normal((2, 3)), random.standard_normal((2, 2))
    np.testing.assert_allclose(kd.cat([a, b], axis=1), np.concatenate([a, b], 1), rtol=1e-6)
    np.testing.assert_allclose(kd.stack([a, a], axis=-1), np.stack([a, a], -1), rtol=1e-6)
    assert kd.cat([[1, 2], [3]]).dtype == np.int64
    check_gradient(lambda t: (kd.cat([t, b], axis=1) ** 2).sum(), a)
    check_gradient(lambda t: (kd.stack([t, 2 * t]) ** 2).sum(), a)
    with pytest.raises(kd.ArgumentError, match="cat: no tensors"):
        kd.cat([])
    with pytest.raises(kd.ShapeError, match=r"cat.*\[2, 3\].*\[2, 2\]"):
        kd.cat([a, b], axis=0)


def test_where_and_clamp(random):
    a, b = random.standard_normal((2, 3, 4)).astype(np.float32)
    mask = a > b
    np.testing.assert_array_equal(kd.where(mask, a, b), np.where(mask, a, b))
    check_gradient(lambda t: (kd.where(mask, t, 0.0) ** 2).sum(), a)
    np.testing.assert_array_equal(kd.clamp(a, -0.5, 0.5), np.clip(a, -0.5, 0.5))
    np.testing.assert_array_equal(kd.clamp(a, min=0.1), np.maximum(a, np.float32(0.1)))
    with pytest.raises(kd.ArgumentError, match="clamp: min"):
        kd.clamp(a, 1, 0)


def test_maximum_and_minimum_of_two(random):
    a, b = random.standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(kd.maximum(a, b), np.maximum(a, b))
    np.testing.assert_array_equal(kd.minimum(kd.tensor(a), 0.2), np.minimum(a, np.float32(0.2)))
    check_gradient(lambda t: (kd.maximum(t, b) * t).sum(), a)


def test_dropout_scales_and_repeats():
    x = np.ones((200, 50), np.float32)
    kd.seed(3)
    first = kd.dropout(x, 0.25).numpy()
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    # 10,000 draws: the share is within 5 standard deviations (0.0043) of 3/4.
    assert abs((first > 0).mean() - 0.75) < 0.022
    kd.seed(3)
    np.testing.assert_array_equal(kd.dropout(x, 0.25), first)
    assert (kd.dropout(x, 0.25).numpy() != first).any()
    np.testing.assert_array_equal(kd.dropout(x, 0.25, training=False), x)
    made = kd.tensor(x, requires_grad=True)
    kd.dropout(made, 0.25, seed=1).sum().backward()
    np.testing.assert_array_equal(made.grad, kd.dropout(x, 0.25, seed=1))
    with pytest.raises(kd.ArgumentError, match="dropout: p is 1"):
        kd.dropout(x, 1)


# Indexing

KEYS = [
    0,
    -1,
    np.int64(1),
    slice(None),
    slice(1, None),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(5, 0, -2),
    slice(2, 2),
    slice(-100, 100),
    Ellipsis,
    None,
    (0, 1, 2),
    (slice(None), 1),
    (..., 1),
    (..., None, slice(0, 3, 2)),
    (1, ..., None),
    (None, 0, slice(None, None, -2), None),
    [3, 0, 0],
    np.array([[0, -1], [2, 1]]),
    (slice(None), [2, 0]),
    ([0, 1], [1, 2]),
    (slice(1, 3), [1], slice(None, None, -1)),
    ([0, 2], slice(None), [1, 1]),
    np.zeros(0, np.int64),
    [],
    np.array([True, False, True, True]),
    (slice(None), np.array([True, False, True])),
    True,
]


@pytest.mark.parametrize("key", KEYS, ids=[str(key).replace("\n", "") for key in KEYS])
def test_indexing_follows_numpy(key, random):
    x = random.standard_normal((4, 3, 5)).astype(np.float32)
    made = kd.tensor(x, requires_grad=True)
    result = made[key]
    np.testing.assert_array_equal(result, x[key])
    weights = random.standard_normal(x[key].shape).astype(np.float32)
    (result * weights).sum().backward()
    expected = np.zeros_like(x)
    np.add.at(expected, key, weights)
    # Repeated indices add up to three terms in another order.
    np.testing.assert_allclose(made.grad, expected, atol=1e-6)


def test_indexing_with_tensors():
    x = kd.tensor(np.arange(6.0).reshape(2, 3))
    assert x[x > 2.5].tolist() == [3, 4, 5]
    assert x[:, kd.tensor([2, 0])].tolist() == [[2, 0], [5, 3]]
    assert x[kd.tensor(1)].tolist() == [3, 4, 5]
    assert kd.tensor([5, 6, 7])[::-1].tolist() == [7, 6, 5]
    assert (x > 2.5)[1].dtype == np.bool_


@pytest.mark.parametrize("key", [2, -3, (0, 0, 0), (0, 3), ([5],), (..., ...), np.ones(5, bool)])
def test_bad_indices_are_index_errors(key):
    x = kd.tensor(np.zeros((2, 3)))
    with pytest.raises(IndexError, match=r"\(2, 3\)"):
        x[key]


@pytest.mark.parametrize("key", [1.5, "a", [0.5], kd.errors.KDSError, slice(None, None, 0)])
def test_keys_that_are_no_index(key):
    with pytest.raises((kd.ArgumentError, TypeError, ValueError)):
        kd.tensor([1.0, 2.0])[key]


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


@pytest.mark.parametrize("name", ["tensors", "functional", "losses", "ops", "_autograd"])
def test_examples_in_the_documentation(name):
    module = importlib.import_module(f"kdswift.{name}")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, extraglobs={"kd": kd, "np": np}, optionflags=flags)
    assert not failed, "see the captured output"


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
    before = lib_bytes_in_use()
    for _ in range(1000):
        step()
    # One leaked 64 KiB tensor a step would be 64 MiB.
    assert lib_bytes_in_use() - before < 20 * 2**20


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
