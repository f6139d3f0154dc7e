"""Detectors: what they are made of, what they find, their weights and files."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tiny import CLASSES, SIZE, batch, detector, python, same, scenes

import kdswift as kd
from kdswift import backbones
from kdswift.errors import ArgumentError, FormatError, ShapeError


def test_defaults_are_the_published_ones():
    model = kd.FasterRCNN(backbones.resnet_small(0.5), num_classes=3, seed=0)
    configuration = model.configuration
    assert configuration["anchor_sizes"] == [128, 256, 512]
    assert (configuration["rpn"]["batch"], configuration["roi"]["batch"]) == (256, 128)
    assert configuration["roi"]["box_std"] == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert model.image_size == (600, 1000)
    assert model.class_names is None


@pytest.mark.parametrize("name", backbones.NAMES)
def test_every_backbone_builds_and_runs(name):
    norm = {} if name in backbones.SWINS else {"norm": None}
    model = kd.FasterRCNN(
        backbones.as_backbone({"name": name, "width": 0.125, **norm}),
        *(3, None, kd.Anchors((32,), (1,)), (64, 64)),
        roi={"hidden": [16], "pool_size": 3, "dropout": 0},
        seed=0,
    )
    features = model.features(np.full((64, 64, 3), 128, np.uint8))
    taps = {tap["name"]: tap for tap in model.taps()}
    assert set(features) <= set(taps)
    for tap, tensor in features.items():
        assert tensor.shape[:2] == (1, taps[tap]["channels"])
    assert np.isfinite(model.predict(np.zeros((64, 64, 3), np.uint8))[0].boxes).all()


def test_seed_decides_the_weights():
    assert same(detector(3), detector(3))
    assert not same(detector(3), detector(4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: kd.FasterRCNN("resnet99", 3), "resnet99"),
        (lambda: kd.FasterRCNN(42, 3), "backbone"),
        (lambda: kd.FasterRCNN("alexnet", 1), "num_classes"),
        (lambda: kd.FasterRCNN("alexnet", 3, class_names=["a"]), "class_names"),
        (lambda: kd.FasterRCNN("alexnet", 3, image_size=(600, 500)), "image_size"),
        (lambda: kd.FasterRCNN("alexnet", 3, neck="fpn"), "neck"),
        (lambda: kd.FasterRCNN("alexnet", 3, image_std=(1, 0, 1)), "image_std"),
        (lambda: detector(rpn={"bach": 3}), "bach"),
        (lambda: detector(roi={"pool": "max"}), "pool"),
        (lambda: backbones.resnet_small(width=0), "width"),
        (lambda: backbones.resnet_small(norm="layer"), "norm"),
        (lambda: kd.Anchors(sizes=(0,)), "sizes"),
    ],
)
def test_wrong_options_are_named(make, words):
    with pytest.raises((ArgumentError, ShapeError), match=words):
        make()


def test_losses_have_gradients():
    model = detector()
    losses = model.losses(*batch(), seed=5)
    assert set(losses) == {
        "loss_objectness",
        "loss_rpn_box_reg",
        "loss_classifier",
        "loss_box_reg",
    }
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters()]
    assert any(g is not None and np.abs(g.numpy()).max() > 0 for g in gradients)
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_losses_repeat_by_seed():
    model, (images, targets) = detector(), batch()
    first, second, other = (
        [loss.item() for loss in model.losses(images, targets, seed=s).values()] for s in (5, 5, 6)
    )
    assert first == second
    assert first != other


def test_predict_takes_mixed_sizes_and_kinds(tmp_path):
    from PIL import Image

    model, (images, _) = detector(), batch(2)
    wide = np.ascontiguousarray(np.tile(images[0], (1, 2, 1)))
    path = tmp_path / "picture.png"
    Image.fromarray(images[1]).save(path)
    floats = np.ascontiguousarray(images[1].transpose(2, 0, 1).astype(np.float32) / 255)
    mixed = [images[0], wide, images[1], Image.fromarray(images[1]), str(path), floats]
    found = model.predict(mixed, score_threshold=0.01)
    assert len(found) == len(mixed)
    for image, result in zip(mixed, found):
        alone = model.predict(image, score_threshold=0.01)[0]
        # Not equal to the last bit: a matrix product adds in another order for other heights.
        np.testing.assert_allclose(alone.scores, result.scores, atol=1e-6)
        np.testing.assert_allclose(alone.boxes, result.boxes, atol=1e-4)
        assert (np.diff(result.scores) <= 0).all()
        assert result.class_names == CLASSES
    for same_picture in found[3:]:
        np.testing.assert_allclose(found[2].boxes, same_picture.boxes, atol=1e-4)
    right = found[1].boxes[:, 2].max() if len(found[1]) else 0
    assert right <= 2 * SIZE


def test_predict_obeys_its_limits():
    model, (images, _) = detector(), batch(1)
    everything = model.predict(images, score_threshold=0.0)[0]
    few = model.predict(images, score_threshold=0.0, max_detections=3)[0]
    assert len(few) == 3
    assert np.array_equal(few.scores, everything.scores[:3])
    limit = float(everything.scores[1])
    assert (model.predict(images, score_threshold=limit)[0].scores >= limit).all()
    assert model.predict([]) == []
    for wrong in ({"score_threshold": 2}, {"max_detections": 0}, {"batch_size": 0}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            model.predict(images, **wrong)


def test_detections_show_themselves():
    model, (images, _) = detector(), batch(1)
    assert model.predict(images)[0]._repr_png_().startswith(b"\x89PNG")


def test_what_a_model_says_of_itself():
    model = detector()
    assert model.num_parameters == sum(p.size for p in model.parameters())
    assert dict(model.named_parameters()).keys() <= model.state_dict().keys()
    assert "parameters" in repr(model.summary())
    assert sum(model.summary().column("parameters")) == model.num_parameters
    assert "<table>" in model.summary()._repr_html_()
    assert model.flops() == model.flops(SIZE) > model.flops((SIZE, SIZE // 2)) > 0
    timing = model.benchmark(repeats=1)
    assert timing.parameters == model.num_parameters
    assert timing.image_size == (SIZE, SIZE)
    assert "roi.class_logits" in model.taps().column("name")


def test_state_dict_round_trip():
    model, other = detector(1), detector(2)
    report = other.load_state_dict(model.state_dict())
    assert report.complete
    assert same(model, other)


def test_strict_loading_refuses_and_changes_nothing():
    model = detector(1)
    before = model.state_dict()
    state = detector(2).state_dict()
    name = next(iter(state))
    with pytest.raises(ArgumentError, match=name):
        model.load_state_dict({k: v for k, v in state.items() if k != name})
    with pytest.raises(ArgumentError, match="extra"):
        model.load_state_dict({**state, "extra": np.zeros(1, np.float32)})
    with pytest.raises(ShapeError, match=name):
        model.load_state_dict({**state, name: np.zeros((1, 2), np.float32)})
    with pytest.raises(ArgumentError, match="NaN"):
        model.load_state_dict({**state, name: np.full_like(state[name], np.nan)})
    assert same(model, before)


def test_loose_loading_reports():
    model, state = detector(1), detector(2).state_dict()
    names = list(state)
    partly = {k: v for k, v in state.items() if k != names[0]}
    partly |= {names[1]: np.zeros(3, np.float32), "extra": np.zeros(1)}
    report = model.load_state_dict(partly, strict=False)
    assert report.missing == [names[0]]
    assert list(report.misshaped) == [names[1]]
    assert report.unexpected == ["extra"]
    assert np.array_equal(model.state_dict()[names[2]], state[names[2]])
    assert "extra" in repr(report)


def test_torch_weights_load(tmp_path):
    torch = pytest.importorskip("torch")
    state = detector(2).state_dict()
    tensors = {k: torch.from_numpy(v) for k, v in state.items()}
    tensors["backbone.bn1.num_batches_tracked"] = torch.tensor(3)
    torch.save({"state_dict": tensors}, tmp_path / "weights.pth")
    for source in (tensors, tmp_path / "weights.pth"):
        model = detector(1)
        assert model.load_state_dict(source).complete
        assert same(model, state)


def test_clone_is_independent():
    model = detector(1)
    for copied in (model.clone(), copy.deepcopy(model)):
        assert same(model, copied)
        copied.load_state_dict(detector(2).state_dict())
        assert not same(model, copied)


def test_freeze_stops_gradients():
    model = detector().freeze()
    assert not any(p.requires_grad for p in model.parameters())
    assert all(p.requires_grad for p in model.freeze(False).parameters())


def test_frozen_stages_do_not_learn():
    model = kd.FasterRCNN(backbones.resnet_small(0.5, frozen_stages=1), 3, seed=0)
    learns = {n: p.requires_grad for n, p in model.named_parameters()}
    assert not learns["backbone.conv1.weight"]
    assert learns["rpn.head.conv.0.0.weight"]


def test_save_and_load(tmp_path):
    model = detector(1)
    model.lineage = [{"run": "fit", "seed": 3}]
    model.save(tmp_path / "m.safetensors")
    copied = kd.load(tmp_path / "m.safetensors")
    assert same(model, copied)
    assert copied.configuration == model.configuration
    assert copied.class_names == CLASSES
    assert copied.lineage == model.lineage
    image = scenes(1)[0][0]
    assert np.array_equal(copied.predict(image)[0].boxes, model.predict(image)[0].boxes)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_loading_names_the_file(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(FormatError, match="nothing.safetensors"):
        kd.load(tmp_path / "nothing.safetensors")
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FormatError, match="foreign.safetensors.*no description"):
        kd.load(tmp_path / "foreign.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(FormatError, match="text.safetensors"):
        kd.load(tmp_path / "text.safetensors")


def test_import_is_light():
    heavy = {"PIL", "matplotlib", "pycocotools", "sklearn", "safetensors", "tqdm", "torch"}
    code = f"import sys, kdswift; print(sorted({heavy!r} & set(sys.modules)))"
    process = python(code)
    output, errors = process.communicate(timeout=60)
    assert output.strip() == "[]", errors
