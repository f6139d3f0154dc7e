"""Detectors against torchvision: same weights, same images, same losses, gradients and detections.

The fixture holds what narrow torchvision detectors computed in double precision
(tools/fixtures/generate_models.py), and ATSS and GFL written from their formulas
(tools/fixtures/generate_dense.py); with torchvision installed, its full models are run as well.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import kdswift as kd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools/fixtures"))

from model_weights import scene, values  # noqa: E402

CASES = [
    one
    for name in ("models", "dense")
    for one in json.loads((HERE / f"fixtures/{name}.json").read_text())["cases"]
]
EVERY = {"batch": 100_000, "positive_fraction": 1.0}
RATIOS = (0.5, 1.0, 2.0)
OCTAVES = [(s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in (16, 24, 32, 48, 64)]


def narrow(name: str) -> kd.Detector:
    """The model of the fixture with this name."""
    backbone = kd.backbones.resnet18(0.125)
    common = {"num_classes": 4, "image_size": (64, 96), "seed": 0}
    if name.startswith("retinanet"):
        second = name.endswith("v2")
        return kd.RetinaNet(
            backbone,
            neck=kd.FPN(16, extra="p6p7_c5" if second else None),
            anchors=kd.Anchors(OCTAVES, RATIOS),
            head={"norm": "group", "box_loss": "giou"} if second else None,
            **common,
        )
    if name == "fcos":
        sizes = ((4,), (8,), (16,), (32,), (64,))
        return kd.FCOS(backbone, neck=kd.FPN(16), anchors=kd.Anchors(sizes, (1,)), **common)
    if name in ("atss", "gfl"):
        own = {"reg_max": 6} if name == "gfl" else {}
        return {"atss": kd.ATSS, "gfl": kd.GFL}[name](
            backbone,
            neck=kd.FPN(16),
            anchors=kd.Anchors(((24,), (40,), (64,), (96,), (128,)), (1,)),
            head={"convs": 2, "assigner_candidates": 4, **own},
            **common,
        )
    second = {"convs": (16, 24), "hidden": (32,), "norm": "batch"}
    return kd.FasterRCNN(
        backbone,
        neck=kd.FPN(16, norm="batch" if name.endswith("v2") else None),
        anchors=kd.Anchors((12, 20, 32, 48, 64), RATIOS),
        rpn={**EVERY, "convs": 2 if name.endswith("v2") else 1},
        roi={**EVERY, **(second if name.endswith("v2") else {})},
        **common,
    )


@pytest.fixture(params=CASES, ids=lambda case: case["name"], scope="module")
def case(request):
    return request.param


@pytest.fixture(scope="module")
def model(case):
    """The narrow model with the fixture's weights, in evaluation mode."""
    made = narrow(case["name"])
    weights = {name: values(name, value.shape) for name, value in made.state_dict().items()}
    report = made.load_state_dict(weights)
    assert report.complete
    return made.eval()


def test_losses_and_gradients(case, model):
    images, targets = scene()
    model.zero_grad()
    losses = model.losses(images, targets, seed=0)
    assert set(losses) == set(case["losses"])
    for name, wanted in case["losses"].items():
        # Single against double precision.
        assert losses[name].item() == pytest.approx(wanted, rel=1e-5), name
    sum(losses.values()).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    model.zero_grad()
    del losses
    assert set(gradients) == set(case["gradients"])
    for name, wanted in case["gradients"].items():
        found = gradients[name].ravel()
        places = np.linspace(0, found.size - 1, 6).astype(int)
        # A ReLU that rounding switches moves a whole gradient a little.
        assert np.linalg.norm(found) == pytest.approx(wanted["norm"], rel=5e-4), name
        # Single precision; where torchvision's own is farther off, three times its distance.
        size = max(wanted["norm"] / found.size**0.5, np.abs(wanted["at"]).max())
        limit = max(2e-4 * size, 3 * wanted["single"])
        assert np.abs(found[places] - wanted["at"]).max() <= limit, name


def test_detections(case, model):
    images, _ = scene()
    limit = 300 if case["name"].startswith("retinanet") else 100
    for image, wanted in zip(images, case["detections"]):
        found = model.predict(image, score_threshold=0.05, max_detections=limit)[0]
        # Untrained heads find the background too: a detector of one stage leaves it out.
        real = np.array(wanted["labels"]) > 0
        boxes, scores, labels = (np.array(wanted[k])[real] for k in ("boxes", "scores", "labels"))
        assert 0 < len(scores) <= len(found.scores) and found.labels.min() > 0
        if real.all():
            assert len(scores) == len(found.scores)
        found = found[: len(scores)]
        # Neighbours whose scores differ in the last digits may change places: each finds its twin.
        far = np.abs(found.boxes[:, None] - boxes[None]).max(-1)
        far += 1e6 * (found.labels[:, None] != labels[None])
        far += np.abs(found.scores[:, None] - scores[None])
        assert far.min(1).max() <= 1e-4 * max(boxes.max(), 1)
        assert np.abs(np.sort(found.scores) - np.sort(scores)).max() <= 1e-4


# Full models, where torchvision is installed


def live(name: str, **options):
    """A full torchvision model, random weights, batch statistics of the scene that stay."""
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    model = getattr(detection, name)(
        weights=None, weights_backbone=None, num_classes=5, min_size=96, max_size=160, **options
    )
    images, targets = scene()
    tensors = [torch.from_numpy(image) for image in images]
    goals = [{key: torch.from_numpy(value) for key, value in one.items()} for one in targets]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(tensors, goals)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model, tensors, goals


ALL = {
    "rpn_batch_size_per_image": 100_000,
    "rpn_positive_fraction": 1.0,
    "box_batch_size_per_image": 100_000,
    "box_positive_fraction": 1.0,
}


@pytest.mark.parametrize(
    ("name", "options", "make"),
    [
        ("retinanet_resnet50_fpn", {}, lambda **o: kd.RetinaNet("resnet50", **o)),
        (
            "retinanet_resnet50_fpn_v2",
            {},
            lambda **o: kd.RetinaNet(
                "resnet50",
                neck=kd.FPN(extra="p6p7_c5"),
                head={"norm": "group", "box_loss": "giou"},
                **o,
            ),
        ),
        ("fcos_resnet50_fpn", {}, lambda **o: kd.FCOS("resnet50", **o)),
        (
            "fasterrcnn_resnet50_fpn",
            ALL,
            lambda **o: kd.FasterRCNN("resnet50", neck="fpn", rpn=EVERY, roi=EVERY, **o),
        ),
        (
            "fasterrcnn_resnet50_fpn_v2",
            ALL,
            lambda **o: kd.FasterRCNN(
                "resnet50",
                neck=kd.FPN(norm="batch"),
                rpn={**EVERY, "convs": 2},
                roi={**EVERY, "convs": (256,) * 4, "hidden": (1024,), "norm": "batch"},
                **o,
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_full_models_load_torchvision_weights(name, options, make):
    """The state_dict loads unchanged, and the losses are torchvision's."""
    reference, tensors, goals = live(name, **options)
    model = make(num_classes=5, image_size=(96, 160)).eval()
    assert model.load_state_dict(reference.state_dict()).complete
    wanted = {key: value.item() for key, value in reference(tensors, goals).items()}
    images, targets = scene()
    found = {key: value.item() for key, value in model.losses(images, targets, seed=0).items()}
    # Both are float32; on random deep networks either is up to 5e-5 from double precision.
    assert found == pytest.approx(wanted, rel=2e-4)
