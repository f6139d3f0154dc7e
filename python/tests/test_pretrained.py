"""Weights of classifiers and of torchvision's older detectors, under whatever names they come."""

from __future__ import annotations

import re

import numpy as np
import pytest

import kdswift as kd
from kdswift.errors import ArgumentError, ShapeError

SIZES = {"image_size": (64, 64), "seed": 0}


def shuffled(model: kd.Detector, seed: int = 3) -> dict[str, np.ndarray]:
    """Other values for every entry of a model."""
    random = np.random.default_rng(seed)
    return {
        name: random.random(value.shape, dtype=np.float32) if value.dtype.kind == "f" else value
        for name, value in model.state_dict().items()
    }


def classifier(model: kd.Detector, prefix: str, **more: np.ndarray) -> dict[str, np.ndarray]:
    """The backbone's entries as a classifier has them, with its last layer."""
    values = {n.removeprefix(prefix): v for n, v in shuffled(model).items() if n.startswith(prefix)}
    own = {n: v for n, v in values.items() if not n.startswith("fpn.")}
    return {**own, "fc.weight": np.zeros((1000, 8), np.float32), **more}


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (lambda: kd.RetinaNet(kd.backbones.resnet18(0.125), 3, **SIZES), "backbone.body."),
        (lambda: kd.FasterRCNN(kd.backbones.resnet50(0.125), 3, **SIZES), "backbone."),
        (lambda: kd.FasterRCNN(kd.backbones.alexnet_owt(0.125), 3, **SIZES), "backbone."),
    ],
)
def test_a_classifier_fills_the_backbone_and_nothing_else(make, prefix):
    model = make()
    before, given = model.state_dict(), classifier(model, prefix)
    report = model.load_backbone(given)
    assert report.complete and set(report.loaded) == {prefix + n for n in given if n[:3] != "fc."}
    for name, value in model.state_dict().items():
        expected = given.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        assert np.array_equal(value, before[name] if expected is None else expected), name


def test_fully_connected_layers_go_to_the_region_head():
    model = kd.FasterRCNN(kd.backbones.vgg16(0.125), 3, **SIZES)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    layers = {}
    for mine, theirs in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
        for kind in ("weight", "bias"):
            shape = shapes[f"roi_heads.box_head.{mine}.{kind}"]
            layers[f"{theirs}.{kind}"] = np.full(shape, 0.5, np.float32)
    given = classifier(model, "backbone.", **layers)
    model.load_backbone(given)
    assert (model.state_dict()["roi_heads.box_head.fc7.weight"] == 0.5).all()
    # Another size stays out, quietly: it is no part of the backbone.
    given["classifier.0.weight"] = np.zeros((4096, 25088), np.float32)
    report = model.load_backbone(given)
    assert report.complete and "roi_heads.box_head.fc6.weight" not in report.loaded


def test_what_does_not_fit_is_named_and_nothing_is_loaded():
    model = kd.FasterRCNN(kd.backbones.resnet18(0.125), 3, **SIZES)
    before = model.state_dict()
    given = classifier(model, "backbone.")
    lacking = {n: v for n, v in given.items() if n != "layer1.0.conv1.weight"}
    with pytest.raises(
        ArgumentError, match=r"load_backbone.*(\n.*)*backbone.layer1.0.conv1.weight"
    ):
        model.load_backbone(lacking)
    wider = {**given, "conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    with pytest.raises(ShapeError, match=r"conv1.weight has shape \(64, 3, 7, 7\)"):
        model.load_backbone(wider)
    strange = {**given, "layer9.weight": np.zeros(1, np.float32)}
    with pytest.raises(ArgumentError, match="1 unexpected: backbone.layer9.weight"):
        model.load_backbone(strange)
    with pytest.raises(ArgumentError, match="load_backbone: expected a mapping"):
        model.load_backbone(3)
    assert all(np.array_equal(v, before[n]) for n, v in model.state_dict().items())
    assert model.load_backbone(lacking, strict=False).missing == ["backbone.layer1.0.conv1.weight"]


def former(name: str) -> str:
    """The name that torchvision's first detectors gave."""
    name = re.sub(r"fpn\.(inner|layer)_blocks\.(\d)\.0\.", r"fpn.\1_blocks.\2.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    name = re.sub(
        r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m.group(1)) + 1}.", name
    )
    return re.sub(r"_head\.conv\.(\d)\.0\.", lambda m: f"_head.conv.{2 * int(m.group(1))}.", name)


@pytest.mark.parametrize("kind", [kd.RetinaNet, kd.MaskRCNN])
def test_names_of_older_files_are_known(kind):
    model = kind(kd.backbones.resnet18(0.125), 3, neck=kd.FPN(16), **SIZES)
    values = shuffled(model)
    old = {former(name): value for name, value in values.items()}
    # Two for each of the pyramid's convolutions, and those of the heads.
    assert sum(name not in values for name in old) >= 12
    assert model.load_state_dict(old).complete
    assert all(np.array_equal(v, values[n]) for n, v in model.state_dict().items())


# Against torchvision


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "vgg16", "alexnet", "swin_t"])
def test_checkpoints_of_classifiers_give_their_features(name, tmp_path):
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = getattr(models, name)(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "classifier.pth")
    ours = kd.backbones.vgg16(caffe_rounding=False) if name == "vgg16" else name
    model = kd.FasterRCNN(
        "alexnet_owt" if name == "alexnet" else ours,
        *(3, None, kd.Anchors((32,), (1,)), (64, 64)),
        image_mean=(0, 0, 0),
        image_std=(1, 1, 1),
    )
    report = model.load_backbone(tmp_path / "classifier.pth")
    assert report.complete
    # Their fully connected layers, where the region head is the published one.
    assert ("roi_heads.box_head.fc7.weight" in report.loaded) is (name in ("vgg16", "alexnet"))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = model.features(image)
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        if name.startswith("res"):
            body = torch.nn.Sequential(*list(network.children())[:-2])
            expected, tap = body(x), "backbone.layer4"
        elif name == "swin_t":
            return  # its features stand behind norms of their own; test_swin.py compares them
        else:
            expected, tap = network.features[:-1](x), "backbone.conv5"
    value = found[tap].numpy()
    # Single precision on both sides.
    assert np.abs(value - expected.numpy()).max() <= 1e-4 * expected.abs().max().item()
