"""Exported models beside `predict`, run by onnxruntime; skipped where it or onnx is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tiny import CLASSES, SIZE, batch, detector, scenes

import kdswift as kd
from kdswift.cli import main
from kdswift.errors import ArgumentError, KDSError, ShapeError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ANCHORS = kd.Anchors(sizes=(16, 24), ratios=(1, 2))
RPN = {"min_size": 4, "post_nms_test": 40, "drop_border_anchors": False}
# One size a level, small ones for small images.
PYRAMID = kd.Anchors(sizes=(8, 16, 24, 32, 48), ratios=(0.5, 1, 2))
SLIM = {"hidden": [64], "pool_size": 5}
BACKBONES = kd.backbones


def single(backbone, **options):
    """A Faster R-CNN on one map."""
    roi = {"hidden": [48, 32], **options.pop("roi", {})}
    return kd.FasterRCNN(
        backbone, len(CLASSES), image_size=(SIZE, SIZE), anchors=ANCHORS, rpn=RPN, roi=roi, seed=3
    )


def pyramid(kind, backbone=None, **options):
    """A detector of two stages on a pyramid."""
    return kind(
        *(backbone or BACKBONES.resnet18(width=0.25), len(CLASSES)),
        neck=options.pop("neck", kd.FPN(32)),
        image_size=(SIZE, SIZE),
        anchors=PYRAMID,
        seed=3,
        rpn={"post_nms_test": 40, **options.pop("rpn", {})},
        roi={**SLIM, **options.pop("roi", {})},
        **options,
    )


def retinanet(neck, **options):
    anchors = {} if neck is None else {"anchors": PYRAMID}
    return kd.RetinaNet(
        *(options.pop("backbone", BACKBONES.resnet18(width=0.25)), len(CLASSES)),
        neck=neck,
        image_size=(SIZE, SIZE),
        seed=3,
        head={"convs": 1, **options},
        **(anchors or {"anchors": ANCHORS}),
    )


def dense(kind, neck=True, **options):
    """FCOS, ATSS or GFL."""
    sizes = (8, 16, 24, 32, 48) if neck else (16,)
    backbone = BACKBONES.resnet18(width=0.25) if neck else "resnet_small"
    return kind(
        *(backbone, len(CLASSES)),
        neck=kd.FPN(32) if neck else None,
        image_size=(SIZE, SIZE),
        anchors=kd.Anchors(tuple((size,) for size in sizes), (1,)),
        seed=3,
        head={"convs": 2, "prior": 0.1, **options},
    )


MASK = {"convs": [16, 16], "channels": 16}
CASES = {
    "faster_rcnn": lambda: single("resnet_small"),
    "output_stride": lambda: single(BACKBONES.resnet_small(width=0.5, output_stride=16)),
    "narrow": lambda: single(BACKBONES.resnet_small(width=0.25, norm="frozen_batch")),
    "no norm": lambda: single(BACKBONES.resnet_small(width=0.25, norm=None)),
    "alexnet": lambda: single(BACKBONES.alexnet(width=0.125)),
    "alexnet_owt": lambda: single(BACKBONES.alexnet_owt(width=0.125)),
    "alexnet bare": lambda: single(BACKBONES.alexnet(0.125, padded=False, caffe_rounding=False)),
    "vgg_m": lambda: single(BACKBONES.vgg_m(width=0.125)),
    "vgg16": lambda: single(BACKBONES.vgg16(width=0.125), roi={"pool": "pool"}),
    "adaptive samples": lambda: single("resnet_small", roi={"sampling_ratio": 0}),
    "resnext": lambda: single(BACKBONES.resnext50_32x4d(width=0.25)),
    "dilated": lambda: single(BACKBONES.resnet50(width=0.25, output_stride=16)),
    "tucker": lambda: kd.surgery.tucker(single("resnet_small"), flops=0.5)[0],
    "faster_rcnn fpn": lambda: pyramid(kd.FasterRCNN),
    "convolutions in the head": lambda: pyramid(
        *(kd.FasterRCNN, BACKBONES.resnet18(width=0.25, norm="group")),
        neck=kd.FPN(32, norm="group"),
        roi={"convs": [16, 16], "norm": "group"},
        rpn={"convs": 2},
    ),
    "mask_rcnn": lambda: pyramid(kd.MaskRCNN, mask=MASK),
    "swin": lambda: pyramid(kd.MaskRCNN, BACKBONES.swin_t(width=0.34), mask=MASK),
    "swin without norms": lambda: pyramid(
        kd.FasterRCNN, BACKBONES.swin_t(width=0.34, output_norm=False)
    ),
    "swin tucker": lambda: kd.surgery.tucker(
        pyramid(kd.FasterRCNN, BACKBONES.swin_t(width=0.34)), flops=0.6
    )[0],
    "mask_rcnn on one map": lambda: kd.MaskRCNN(
        *("resnet_small", len(CLASSES)), neck=None, image_size=(SIZE, SIZE), anchors=ANCHORS,
        seed=3, rpn=RPN, roi=SLIM, mask={**MASK, "norm": "batch"},
    ),
    "cascade_rcnn": lambda: pyramid(kd.CascadeRCNN),
    "cascade with masks": lambda: pyramid(kd.CascadeRCNN, mask=MASK),
    "retinanet": lambda: retinanet(kd.FPN(32)),
    "retinanet p6p7_c5": lambda: retinanet(kd.FPN(32, extra="p6p7_c5"), norm="group"),
    "retinanet without a neck": lambda: retinanet(None, backbone="resnet_small"),
    "fcos": lambda: dense(kd.FCOS),
    "fcos tucker": lambda: kd.surgery.tucker(dense(kd.FCOS), flops=0.6)[0],
    "atss": lambda: dense(kd.ATSS),
    "atss without a neck": lambda: dense(kd.ATSS, neck=False, norm="batch"),
    "gfl": lambda: dense(kd.GFL, reg_max=7),
    "gfl tucker": lambda: kd.surgery.tucker(dense(kd.GFL), flops=0.6)[0],
    "retinanet few candidates": lambda: retinanet(kd.FPN(32), top_candidates=20),
}  # fmt: skip


def lively(model):
    """The model with statistics and heads that say different things of different places."""
    rng = np.random.default_rng(0)
    for name, values in model.state_dict().items():
        if name.endswith("running_mean"):
            new = 0.1 * rng.standard_normal(values.shape)
        elif name.endswith("running_var"):
            new = 0.7 + 0.6 * rng.random(values.shape)
        elif name.endswith(("cls_score.weight", "cls_logits.weight", "mask_fcn_logits.weight")):
            new = 10 * values
        elif name.endswith(("bbox_pred.weight", "bbox_reg.weight")):
            new = 4 * values
        else:
            continue
        model._engine.load(name, new.astype(np.float32))
    return model


def pixels(image):
    """What the exported model takes."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None] / np.float32(255))


def run(path, image, names=None):
    """Outputs of the file by name."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = names or [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image})))


def assert_same(ours, found, size):
    """Equal detections; the order of equal scores is open."""
    assert found["labels"].dtype == np.int64
    assert len(found["scores"]) == len(ours.scores) > 5
    assert (np.diff(found["scores"]) <= 0).all()
    # Float32 sums in another order: 1e-6 of the logits, which reach 30 in deep networks here, and
    # boxes multiply that by their size.
    np.testing.assert_allclose(found["scores"], ours.scores, atol=1e-4)
    rows = np.lexsort((ours.boxes[:, 0].round(1), ours.labels, -ours.scores.round(4)))
    others = np.lexsort((found["boxes"][:, 0].round(1), found["labels"], -found["scores"].round(4)))
    np.testing.assert_array_equal(found["labels"][others], ours.labels[rows])
    np.testing.assert_allclose(found["boxes"][others], ours.boxes[rows], rtol=1e-5, atol=1e-4)
    if ours.masks is not None:
        pasted = kd.onnx_export.paste_masks(found["boxes"], found["masks"], *size)
        assert 0.001 < ours.masks.mean() < 0.9
        # A pixel whose probability is one half may fall to either side.
        assert (pasted[others] != ours.masks[rows]).mean() < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_finds_what_predict_finds(case, tmp_path):
    model = lively(CASES[case]())
    written = model.export_onnx(tmp_path / "m.onnx", score_threshold=0.02)
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    assert written.differences["maps"] < 1e-5  # ten times what the sums of these sizes give
    assert written.differences["unmatched"] == 0
    image = scenes(1)[0][0]
    ours = model.predict(image, 0.02)[0]
    assert_same(ours, run(tmp_path / "m.onnx", pixels(image)), image.shape[:2])


def test_other_sizes_are_padded_inside(tmp_path):
    """Neither side is a multiple of the 32 that the network wants; boxes end at the image's."""
    model = lively(CASES["mask_rcnn"]())
    model.export_onnx(tmp_path / "m.onnx", image_size=(52, 70), score_threshold=0.02)
    image = np.random.default_rng(0).integers(0, 256, (52, 70, 3), dtype=np.uint8)
    same = {**model.configuration, "image_min": 52, "image_max": 70}
    twin = kd.MaskRCNN.from_configuration(same)
    twin.load_state_dict(model.state_dict())
    found = run(tmp_path / "m.onnx", pixels(image))
    assert_same(twin.predict(image, 0.02)[0], found, (52, 70))
    assert 48 < found["boxes"][:, 2].max() <= 70
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        run(tmp_path / "m.onnx", np.zeros((1, 3, 48, 48), np.float32))


def test_large_regions_read_coarse_levels(tmp_path):
    """Regions leave the finest level from sides of 112 on, and the next one from 224 on."""
    model = kd.MaskRCNN(
        *(BACKBONES.resnet_small(width=0.25, output_stride=16), len(CLASSES), kd.FPN(16)),
        image_size=(320, 320),
        anchors=kd.Anchors((270, 90, 150, 300), (0.5, 1, 2)),
        seed=3,
        rpn={"post_nms_test": 300},
        roi=SLIM,
        mask=MASK,
    )
    options = {"score_threshold": 0.01, "max_detections": 200}
    lively(model).export_onnx(tmp_path / "m.onnx", **options)
    image = kd.data.DigitScenes("train", 1, 320)[0][0]
    ours = model.predict(image, **options)[0]
    sides = np.sqrt(np.prod(ours.boxes[:, 2:] - ours.boxes[:, :2], axis=1))
    assert (sides < 112).any() and (sides > 113).any() and (sides > 225).any()
    assert_same(ours, run(tmp_path / "m.onnx", pixels(image)), (320, 320))


def test_options_are_those_of_predict(tmp_path):
    model = lively(CASES["faster_rcnn fpn"]())
    options = {"score_threshold": 0.3, "max_detections": 7, "nms_threshold": 0.2}
    written = model.export_onnx(tmp_path / "m.onnx", **options)
    image = scenes(2)[1][0]
    found = run(tmp_path / "m.onnx", pixels(image))
    assert len(found["scores"]) == 7
    assert_same(model.predict(image, *options.values())[0], found, (SIZE, SIZE))
    assert written.inputs == {"image": (1, 3, SIZE, SIZE)}
    assert written.outputs["boxes"] == ("detections", 4)
    assert written.size == (tmp_path / "m.onnx").stat().st_size
    assert "MB" in str(written)
    properties = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert properties["detector"] == "faster_rcnn"


@pytest.mark.parametrize("case", ["faster_rcnn", "mask_rcnn", "cascade with masks", "retinanet"])
def test_nothing_to_find(case, tmp_path):
    """No score is above 1."""
    model = CASES[case]()
    model.export_onnx(tmp_path / "m.onnx", score_threshold=1.0)
    found = run(tmp_path / "m.onnx", pixels(scenes(1)[0][0]))
    assert found["boxes"].shape == (0, 4)
    assert found["scores"].shape == found["labels"].shape == (0,)
    if "masks" in found:
        assert found["masks"].shape == (0, 28, 28)
        assert kd.onnx_export.paste_masks(found["boxes"], found["masks"], 9, 8).shape == (0, 9, 8)


@pytest.mark.parametrize("neck", [None, kd.FPN(16)])
def test_no_proposal_is_large_enough(neck, tmp_path):
    model = kd.MaskRCNN(
        *(BACKBONES.resnet18(width=0.25), len(CLASSES), neck),
        image_size=(SIZE, SIZE),
        anchors=PYRAMID if neck else ANCHORS,
        rpn={"min_size": 1000},
        roi=SLIM,
        mask=MASK,
    )
    model.export_onnx(tmp_path / "m.onnx")
    assert run(tmp_path / "m.onnx", pixels(scenes(1)[0][0]))["boxes"].shape == (0, 4)


# Files in use


def test_an_exported_model_is_a_teacher(tmp_path):
    """Its tensors bear the names of taps; a student learns from them as from the model itself."""
    model = lively(detector())
    taps = ["backbone.layer2", "rpn.objectness"]
    written = model.export_onnx(tmp_path / "m.onnx", taps=taps)
    assert written.outputs["rpn.objectness"] == (
        1,
        8,
        "height of rpn.objectness",
        "width of rpn.objectness",
    )
    images, targets = batch(2)
    features = model.features(images)
    with kd.Teacher.from_onnx(tmp_path / "m.onnx", [*taps, "backbone.layer3"]) as teacher:
        outputs = teacher.outputs(images)
        for tap in (*taps, "backbone.layer3"):
            ours = features[tap].numpy()
            # Float32 sums in another order.
            np.testing.assert_allclose(outputs[tap], ours, atol=1e-5 * np.abs(ours).max())
        term = kd.Term("backbone.layer3", "backbone.layer3", name="hint")
        history = kd.distill(
            *(detector(1), teacher, scenes(4)),
            method=term,
            epochs=1,
            batch_size=2,
            progress=False,
            workers=0,
        )
        assert np.isfinite(history.rows[-1]["hint"])


def test_paste_masks_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"\(2, 4\) and masks \(1, 28, 28\)"):
        kd.onnx_export.paste_masks(np.zeros((2, 4)), np.zeros((1, 28, 28)), 8, 8)


def test_command_line(tmp_path, capsys):
    detector().save(tmp_path / "m.safetensors")
    arguments = [str(tmp_path / "m.safetensors"), str(tmp_path / "m.onnx")]
    assert main(["export", *arguments, "--image-size", "40", "56", "--threshold", "0.1"]) == 0
    assert "image 1x3x40x56" in capsys.readouterr().out
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].name == "image"
    assert main(["export", *arguments, "--taps", "backbone.layer9", "--no-check"]) == 1
    assert "backbone.layer9" in capsys.readouterr().err


# Refusals, none of which leaves a file


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(package, monkeypatch, tmp_path):
    for name in [n for n in sys.modules if n.startswith("kdswift.onnx_export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(KDSError, match=rf"needs {package}: pip install 'kdswift\[onnx\]'"):
        detector().export_onnx(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    if package == "onnxruntime":
        detector().export_onnx(tmp_path / "m.onnx", check=False)
        assert (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"taps": ["neck.p3"]}, r"taps has 'neck\.p3'; there are backbone\.layer1,"),
        ({"image_size": (0, 4)}, "image_size"),
        ({"score_threshold": 2}, "score_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"nms_threshold": -1}, "nms_threshold"),
    ],
)
def test_wrong_options_are_named(options, words, tmp_path):
    with pytest.raises(ArgumentError, match=words):
        detector().export_onnx(tmp_path / "m.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_parts_without_an_operator_are_named(tmp_path, monkeypatch):
    deforming = single(BACKBONES.resnet18(width=0.25, dcn_stages=(4,)))
    with pytest.raises(ArgumentError, match="deformable"):
        deforming.export_onnx(tmp_path / "m.onnx")
    with pytest.raises(ArgumentError, match="'rfcn' cannot be exported; those that can are"):
        kd.RFCN("resnet_small", len(CLASSES)).export_onnx(tmp_path / "m.onnx")
    model = detector()
    state = {**model.state_dict(), "roi_heads.new_part.weight": np.zeros(3, np.float32)}
    monkeypatch.setattr(model, "state_dict", lambda: state)
    with pytest.raises(ArgumentError, match=r"parts that .*roi_heads\.new_part\.weight"):
        model.export_onnx(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "name", "words"),
    [("export._normalized", "shifted", "maps"), ("one_stage.anchor_sides", "moved", "detections")],
)
def test_the_check_sees_a_wrong_graph(where, name, words, monkeypatch, tmp_path):
    module, attribute = where.split(".")
    module = __import__(f"kdswift.onnx_export.{module}", fromlist=["*"])
    right = getattr(module, attribute)

    def shifted(graph, *arguments):
        image = right(graph, *arguments)
        return type(image)(graph.node("Add", image.name, 0.1), image.channels, *image_size(image))

    def image_size(image):
        return image.height, image.width

    def moved(anchors):
        return right(anchors + np.float32(0.5))

    monkeypatch.setattr(module, attribute, {"shifted": shifted, "moved": moved}[name])
    with pytest.raises(KDSError, match=words):
        lively(CASES["retinanet"]()).export_onnx(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
