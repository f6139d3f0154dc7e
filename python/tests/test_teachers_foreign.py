"""PyTorch modules and ONNX models as teachers; skipped where torch or onnxruntime is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tiny import QUIET, batch, detector, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, FormatError, KDSError

TERM = kd.Term("backbone.layer3", "c", name="mine")


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(KDSError, match="pip install torch"):
        kd.Teacher.from_torch(object(), {"c": "x"})
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(KDSError, match="pip install onnxruntime"):
        kd.Teacher.from_onnx(tmp_path / "m.onnx")


# PyTorch


@pytest.fixture
def network():
    """Two branches, batch statistics, dropout, and outputs of every kind."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Pyramid(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(6, 4, 1)

        def forward(self, x):
            from collections import OrderedDict

            return OrderedDict([("0", self.conv(x)), ("a.b", self.conv(x[..., ::2, ::2]))])

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            norm, dropout = torch.nn.BatchNorm2d(6), torch.nn.Dropout(0.5)
            self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 4, 8), norm, dropout)
            self.fpn = Pyramid()

        def forward(self, x):
            x = torch.stack(x) if isinstance(x, list) else x
            body = self.body(x)
            return body.mean((2, 3)), [{"deep": self.fpn(body)["0"]}]

    return Network()


def test_taps_of_modules_dicts_and_tuples(network):
    import torch

    images, _ = batch(2)
    taps = {"c": "body.0", "p": "fpn.0", "q": "fpn.a.b", "mean": "0", "deep": "1.0.deep"}
    out = kd.Teacher.from_torch(network, {**taps, "again": "fpn.conv#1"}).outputs(images)
    network.eval()
    pixels = np.stack([i.transpose(2, 0, 1) / np.float32(255) for i in images])
    x = torch.from_numpy(np.ascontiguousarray(pixels))
    with torch.no_grad():
        body = network.body(x)
        pyramid = network.fpn(body)
    np.testing.assert_array_equal(out["c"], network.body[0](x).detach().numpy())
    np.testing.assert_array_equal(out["p"], pyramid["0"].numpy())
    np.testing.assert_array_equal(out["q"], pyramid["a.b"].numpy())
    np.testing.assert_array_equal(out["again"], pyramid["a.b"].numpy())
    np.testing.assert_array_equal(out["mean"], body.mean((2, 3)).numpy())
    np.testing.assert_array_equal(out["deep"], pyramid["0"].numpy())


def test_the_module_stays_as_it_was(network):
    import torch

    network.train()
    network.body[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [m.training for m in network.modules()]
    with kd.Teacher.from_torch(network, {"c": "body"}) as teacher:
        images, _ = batch(2)
        first, second = (teacher.outputs(images)["c"] for _ in range(2))
        assert first.tobytes() == second.tobytes()  # no dropout, no batch statistics
    assert [m.training for m in network.modules()] == flags
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    with pytest.raises(ArgumentError, match="closed"):
        teacher.outputs(images)
    network.fpn.forward = lambda x: 1 / 0
    teacher = kd.Teacher.from_torch(network, {"c": "body"})
    with pytest.raises(ZeroDivisionError):
        teacher.outputs(images)
    assert [m.training for m in network.modules()] == flags
    assert not any(m._forward_hooks for m in network.modules())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("body.9", r"no '9' in it|tensor has no part '9'"),
        ("bodies.1", "no submodule leads to 'bodies.1'|no 'bodies'"),
        ("fpn", r"several tensors; add one of 0, a\.b"),
        ("fpn.7", "no '7' in it; add one of 0"),
        ("fpn.conv", "ran 2 times"),
        ("fpn.conv#5", "ran 2 times only"),
        ("1.0", "several tensors; add one of deep"),
        ("", "several tensors; add one of 0, 1"),
        ("fpn#x", "number after '#'"),
    ],
)
def test_wrong_paths_are_named(network, path, words):
    images, _ = batch(1)
    with pytest.raises(ArgumentError, match=words):
        kd.Teacher.from_torch(network, {"c": path}).outputs(images)


def test_layers_that_work_in_place_do_not_reach_back(network):
    import torch

    network.body[2] = torch.nn.ReLU(inplace=True)
    images, _ = batch(1)
    out = kd.Teacher.from_torch(network, {"before": "body.1", "after": "body.2"}).outputs(images)
    assert out["before"].min() < 0
    np.testing.assert_array_equal(out["after"], np.maximum(out["before"], 0))


def test_a_module_that_does_not_run_is_named(network):
    import torch

    network.unused = torch.nn.Conv2d(3, 3, 1)
    images, _ = batch(1)
    with pytest.raises(ArgumentError, match="'unused' did not run"):
        kd.Teacher.from_torch(network, {"c": "unused"}).outputs(images)


def test_distilling_from_torch(network, tmp_path):
    teacher = kd.Teacher.from_torch(network, {"c": "body"}, normalize="imagenet")
    student = detector(1, width=0.25)
    options = {**QUIET, "optimizer": kd.AdamW(lr=5e-3)}
    history = kd.distill(student, teacher, scenes(4), kd.Method([TERM]), 6, seed=3, **options)
    values = [row["mine"] for row in history.rows]
    assert values[-1] < values[0]
    before = teacher.description()
    import torch

    with torch.no_grad():
        network.body[0].weight[0, 0, 0, 0] += 1
    changed = kd.Teacher.from_torch(network, {"c": "body"}, normalize="imagenet").description()
    assert changed["weights"] != before["weights"]


def test_torchvision_detectors_take_lists():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    )
    teacher = kd.Teacher.from_torch(model, {"p": "backbone.fpn.0", "rpn": "rpn.head.0.0"})
    images, _ = batch(2)
    out = teacher.outputs(images)
    assert out["p"].shape == (2, 256, 2, 2)
    assert out["rpn"].shape[:2] == (2, 15)


# ONNX


@pytest.fixture
def onnx_file(tmp_path):
    """conv -> relu "inside" -> global mean "logits"; the batch and the sizes are free."""
    return _save_onnx(tmp_path / "m.onnx", ["n", 3, "h", "w"])


WEIGHT = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)


def _save_onnx(path, shape):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], strides=[8, 8]),
        helper.make_node("Relu", ["conv"], ["inside"]),
        helper.make_node("GlobalAveragePool", ["inside"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, None)],
        [onnx.numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def _expected(images):
    x = np.stack([i.transpose(2, 0, 1) / np.float32(255) for i in images])
    return np.maximum(kd.conv2d(x, WEIGHT, stride=8).numpy(), 0)


def test_onnx_outputs_and_inner_tensors(onnx_file):
    images, _ = batch(2)
    teacher = kd.Teacher.from_onnx(onnx_file)
    assert teacher.names == ("logits",)
    expected = _expected(images)
    logits = teacher.outputs(images)["logits"]
    # Two implementations of one convolution over 192 products of order 1.
    np.testing.assert_allclose(logits[..., 0, 0], expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    inner = kd.Teacher.from_onnx(onnx_file, {"c": "inside", "l": "logits"}).outputs(images)
    np.testing.assert_allclose(inner["c"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(inner["l"], logits)


def test_onnx_with_fixed_sizes(tmp_path):
    images, _ = batch(2)
    teacher = kd.Teacher.from_onnx(_save_onnx(tmp_path / "f.onnx", [1, 3, 24, 40]), ["inside"])
    assert teacher.outputs(images)["inside"].shape == (2, 5, 3, 5)
    with pytest.raises(ArgumentError, match=r"the model takes \(24, 40\)"):
        kd.Teacher.from_onnx(tmp_path / "f.onnx", exact_size=(24, 24))
    pairs = kd.Teacher.from_onnx(_save_onnx(tmp_path / "2.onnx", [2, 3, "h", "w"]))
    with pytest.raises(ArgumentError, match="batches of 2, got 1"):
        pairs.outputs(images[:1])


def test_onnx_errors(onnx_file, tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="no tensor 'deep'; its outputs are logits.*inside"):
        kd.Teacher.from_onnx(onnx_file, ["deep"])
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(FormatError, match=r"bad\.onnx"):
        kd.Teacher.from_onnx(tmp_path / "bad.onnx")
    with pytest.raises(FormatError, match="no such file"):
        kd.Teacher.from_onnx(tmp_path / "none.onnx")
    wide = _save_onnx(tmp_path / "wide.onnx", ["n", 4, "h", "w"])
    images, _ = batch(1)
    with pytest.raises(KDSError, match=r"wide\.onnx"):
        kd.Teacher.from_onnx(wide).outputs(images)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(KDSError, match=r"inside is no output.*pip install onnx"):
        kd.Teacher.from_onnx(onnx_file, ["inside"])


def test_distilling_from_onnx(onnx_file, tmp_path):
    teacher = kd.Teacher.from_onnx(onnx_file, {"c": "inside"})
    student = detector(1, width=0.25)
    options = {**QUIET, "optimizer": kd.AdamW(lr=5e-3)}
    history = kd.distill(student, teacher, scenes(4), kd.Method([TERM]), 6, seed=3, **options)
    values = [row["mine"] for row in history.rows]
    assert values[-1] < values[0]
    assert teacher.description() == kd.Teacher.from_onnx(onnx_file, {"c": "inside"}).description()
