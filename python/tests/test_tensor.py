"""The tensor: values in and out."""

from __future__ import annotations

import doctest
import gc
import importlib
import pickle

import numpy as np
import pytest
from measure import resident_memory

import kdswift as kd

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
    before = resident_memory()
    for _ in range(50):
        kd.tensor(np.zeros(100_000)).__dlpack__(max_version=version)
    gc.collect()
    assert resident_memory() - before < 10 * 400_000


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


@pytest.mark.parametrize("name", ["tensors", "functional", "losses", "ops", "_autograd"])
def test_examples_in_the_documentation(name):
    module = importlib.import_module(f"kdswift.{name}")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, extraglobs={"kd": kd, "np": np}, optionflags=flags)
    assert not failed, "see the captured output"
