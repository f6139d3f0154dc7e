"""The tensor: operators, functions, indexing, against NumPy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from measure import check_gradient

import kdswift as kd


@pytest.fixture
def random():
    return np.random.default_rng(5)


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
