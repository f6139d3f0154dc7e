"""Binary students and quantized maps: what changes, files, learning, both ways to compute."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import CLASSES, QUIET, SIZE, batch, detector, python, same, scenes

import kdswift as kd
from kdswift import quantization

BACKBONES = kd.backbones


def record(model: kd.Detector) -> dict:
    return json.loads(model.configuration["surgery"])


def maps(model: kd.Detector, images: list, counted: bool) -> dict[str, np.ndarray]:
    """Feature maps by counting bits (no tape) or by convolution of floats (on the tape)."""
    if counted:
        with kd.no_grad():
            found = model.features(images)
    else:
        found = model.features(images)
        assert any(tensor.requires_grad for tensor in found.values())
    return {name: tensor.numpy() for name, tensor in found.items()}


# What is replaced


def test_first_layer_and_heads_stay():
    model = detector()
    small, report = kd.surgery.binarize(model)
    changed = {row["layer"] for row in report}
    assert changed == {
        name.removesuffix(".weight")
        for name, value in model.state_dict().items()
        if name.startswith("backbone.layer") and value.ndim == 4
    }
    assert "backbone.conv1 (first)" in report.footer
    assert all(f"{name}.norm.weight" in small.state_dict() for name in changed)
    assert small.lineage[-1]["surgery"] == "binarize"
    # The model that was given is as it was, and the weights are the same real numbers.
    assert record_is_empty(model)
    before, after = model.state_dict(), small.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert "BinaryConv2d" in str(small.summary())


def record_is_empty(model: kd.Detector) -> bool:
    return not model.configuration["surgery"]


def test_speedup_is_the_papers():
    # Section 4.1: 62.27 for 256 channels and 3x3 kernels.
    model = kd.FasterRCNN(BACKBONES.resnet18(), len(CLASSES), image_size=(SIZE, SIZE))
    report = kd.surgery.binarize(model)[1]
    wide = [r for r in report if r["inputs"] == 256 and r["kernel"] == [3, 3]]
    assert wide and all(abs(r["theoretical_speedup"] - 62.27) < 0.005 for r in wide)


def test_keep():
    model = kd.FasterRCNN(
        BACKBONES.resnet18(width=0.125),
        len(CLASSES),
        neck=kd.FPN(16),
        image_size=(SIZE, SIZE),
        anchors=kd.Anchors(sizes=((8,), (16,), (24,), (32,), (48,)), ratios=(1, 2)),
    )
    layers = {row["layer"] for row in kd.surgery.binarize(model)[1]}
    assert layers and not any("fpn" in name for name in layers)
    assert any("downsample" in name for name in layers)
    fewer = {
        row["layer"]
        for row in kd.surgery.binarize(model, keep=("first", "last", "downsample", "layer4"))[1]
    }
    assert fewer == {n for n in layers if "downsample" not in n and "layer4" not in n}
    all_of_them = {row["layer"] for row in kd.surgery.binarize(model, keep=())[1]}
    assert {"backbone.body.conv1", "backbone.fpn.inner_blocks.0.0"} <= all_of_them
    assert not any(name.startswith(("rpn", "roi_heads")) for name in all_of_them)


def test_groups_frozen_and_foreign_convolutions_stay():
    alexnet = detector_on(BACKBONES.alexnet(width=0.125))
    report = kd.surgery.binarize(alexnet)[1]
    assert [row["layer"] for row in report] == ["backbone.features.conv3"]
    assert "conv2 (in groups)" in report.footer
    frozen = detector_on(BACKBONES.resnet18(width=0.125, frozen_stages=2))
    assert "layer1.0.conv1 (frozen)" in kd.surgery.binarize(frozen)[1].footer
    bent = detector_on(BACKBONES.resnet50(width=0.125, dcn_stages=(3,)))
    report = kd.surgery.binarize(bent)[1]
    assert "(deformable)" in report.footer
    assert not any("conv_offset" in row["layer"] for row in report)
    tuckered, _ = kd.surgery.tucker(detector(), ranks={"backbone.layer2.0.conv1": (8, 8)})
    both, report = kd.surgery.binarize(tuckered)
    assert "layer2.0.conv1.core (factorized)" in report.footer
    assert record(both)["layers"] and record(both)["binary"]


def detector_on(backbone) -> kd.FasterRCNN:
    return kd.FasterRCNN(backbone, len(CLASSES), image_size=(SIZE, SIZE), class_names=CLASSES)


def test_mistakes_are_explained():
    model = detector()
    with pytest.raises(kd.ArgumentError, match='no convolution of the backbone or neck "layer9"'):
        kd.surgery.binarize(model, keep=("layer9",))
    with pytest.raises(kd.ArgumentError, match="order is 'CBAP'"):
        kd.surgery.binarize(model, order="CBAP")
    with pytest.raises(kd.ArgumentError, match="preset is 'code'"):
        kd.surgery.binarize(model, preset="code")
    with pytest.raises(kd.ArgumentError, match="model must be a detector, got str"):
        kd.surgery.binarize("model.safetensors")
    with pytest.raises(kd.ArgumentError, match="no convolution of swin_t is left"):
        kd.surgery.binarize(detector_on(BACKBONES.swin_t(width=0.34)))
    pytest.importorskip("onnx")
    with pytest.raises(kd.ArgumentError, match="convolutions of signs .* cannot be exported"):
        kd.surgery.binarize(model)[0].export_onnx("never.onnx", check=False)


# What it computes


@pytest.mark.parametrize("k", [False, True])
@pytest.mark.parametrize("norm", ["batch", None])
def test_counting_bits_equals_convolving_floats(k, norm):
    model = kd.surgery.binarize(
        detector_on(BACKBONES.resnet_small(width=0.5, norm=norm)), scaling_factor_k=k
    )[0]
    images, targets = batch(2)
    trained(model, images, targets, steps=2)
    counted, floating = (maps(model, images, way) for way in (True, False))
    assert counted.keys() == floating.keys()
    for name, value in counted.items():
        scale = np.abs(floating[name]).max()
        # Sums of up to 1152 numbers in another order; Winograd's kernels lose a digit more.
        assert np.abs(value - floating[name]).max() <= 1e-5 * scale, name


def trained(model: kd.Detector, images: list, targets: list, steps: int) -> list[float]:
    """Losses of some steps of gradient descent on one batch."""
    model.train()
    losses = []
    for step in range(steps):
        total = sum(model.losses(images, targets, seed=step).values())
        total.backward()
        moved = {
            name: value.numpy() - 0.05 * value.grad.numpy()
            for name, value in model.named_parameters()
            if value.grad is not None
        }
        model.zero_grad()
        model.load_state_dict({**model.state_dict(), **moved})
        losses.append(float(total))
    model.eval()
    return losses


def test_predictions_follow_the_weights():
    """The packed signs are made anew when weights change."""
    model = kd.surgery.binarize(detector())[0]
    images, _ = batch(1)
    before = maps(model, images, True)["backbone.layer3"]
    state = model.state_dict()
    name = "backbone.layer3.0.conv2.weight"
    model.load_state_dict({**state, name: -state[name]})
    after = maps(model, images, True)["backbone.layer3"]
    assert not np.array_equal(before, after)
    model.load_state_dict(state)
    assert np.array_equal(maps(model, images, True)["backbone.layer3"], before)


def test_operations_count_a_64th():
    model = detector()
    # 9 products of 64 channels each: 577 of 64 x 576 in a layer of 64 channels.
    assert kd.surgery.binarize(model)[0].flops() < 0.6 * model.flops()


# Learning


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_a_binary_student_learns(preset):
    model, _ = kd.surgery.binarize(detector(width=0.25), preset=preset)
    start = model.state_dict()
    history = model.fit(scenes(8), epochs=12, optimizer=kd.Adam(lr=3e-3), **QUIET)
    loss = [row["loss"] for row in history.rows]
    assert np.mean(loss[-3:]) < 0.8 * np.mean(loss[:3])
    name = "backbone.layer2.0.conv2.weight"
    weights = model.state_dict()[name]
    assert not np.array_equal(weights, start[name])
    # Real numbers, not signs; the authors' clamp bounds them, up to one step behind it.
    assert len(np.unique(np.abs(weights))) > 10
    if preset == "official":
        assert np.abs(weights).max() <= 1.1


def test_a_binary_student_is_distilled():
    student, _ = kd.surgery.binarize(detector(width=0.25))
    history = kd.distill(student, detector(1), scenes(4), epochs=1, **QUIET)
    assert history is not None
    assert all(np.isfinite(value).all() for value in student.state_dict().values())


# Files


def test_files_rebuild_it(tmp_path):
    model, _ = kd.surgery.binarize(detector(), scaling_factor_k=True, preset="official")
    images, targets = batch(2)
    trained(model, images, targets, 1)
    path = tmp_path / "binary.safetensors"
    model.save(path)
    loaded = kd.load(path)
    assert same(model, loaded)
    assert loaded.configuration == model.configuration
    settings = record(loaded)["binary"][0]["settings"]
    assert settings == {"order": "paper", "rule": "official", "scaling_factor_k": True}
    assert all(
        np.array_equal(a, b)
        for a, b in zip(maps(model, images, True).values(), maps(loaded, images, True).values())
    )
    assert same(model.clone(), model)


def test_another_process_loads_it(tmp_path):
    model, _ = kd.surgery.binarize(kd.surgery.quantize_features(detector()))
    model.save(tmp_path / "model.safetensors")
    code = "import sys, kdswift as kd; print(kd.load(sys.argv[1]).num_parameters)"
    process = python(code, tmp_path / "model.safetensors")
    found, errors = process.communicate(timeout=120)
    assert found.strip() == str(model.num_parameters), errors


# Quantized maps


def test_quantized_map_has_whole_steps():
    model = detector()
    quantized = kd.surgery.quantize_features(model, step=0.5)
    assert same(model, quantized)
    images, _ = batch(2)
    before, after = maps(model, images, True), maps(quantized, images, True)
    last = "backbone.layer3"
    wanted = 0.5 * np.maximum(0, np.ceil(before[last].astype(np.float64) / 0.5 - 0.5))
    assert np.array_equal(after[last], wanted.astype(np.float32))
    assert len(np.unique(after[last])) > 2
    # What lies before it is untouched; the heads read the quantized map.
    assert np.array_equal(before["backbone.layer2"], after["backbone.layer2"])
    assert not np.array_equal(before["rpn.objectness"], after["rpn.objectness"])
    assert record(quantized)["quantizers"] == [{"form": "uniform", "layer": last, "step": 0.5}]


def test_every_level_or_one():
    model = kd.RetinaNet(
        BACKBONES.resnet18(width=0.125),
        len(CLASSES),
        neck=kd.FPN(16),
        image_size=(SIZE, SIZE),
        anchors=kd.Anchors(sizes=((8,), (16,), (24,), (32,), (48,)), ratios=(1, 2)),
    )
    levels = [name for name in model.taps().column("name") if name.startswith("neck.")]
    every = kd.surgery.quantize_features(model)
    assert [entry["layer"] for entry in record(every)["quantizers"]] == levels
    one = kd.surgery.quantize_features(model, form="power_of_two", layer=levels[1], step=0.01)
    images, _ = batch(1)
    before, after = maps(model, images, True), maps(one, images, True)
    assert np.array_equal(before[levels[0]], after[levels[0]])
    found = np.unique(after[levels[1]])
    powers = np.concatenate([[0], 0.01 * 2.0 ** np.arange(20)]).astype(np.float32)
    assert len(found) > 2
    assert np.isin(found, powers).all()
    with pytest.raises(kd.ArgumentError, match=r'"backbone.layer2" is not a map that heads read'):
        kd.surgery.quantize_features(model, layer="backbone.layer2")


def test_a_quantized_teacher_is_finetuned(tmp_path):
    model = kd.surgery.quantize_features(detector(), step=0.25)
    start = model.state_dict()
    model.fit(scenes(4), epochs=1, optimizer=kd.SGD(lr=1e-3), **QUIET)
    # Gradients pass the quantizer: the first layer learns.
    assert not np.array_equal(
        model.state_dict()["backbone.conv1.weight"], start["backbone.conv1.weight"]
    )
    model.save(tmp_path / "teacher.safetensors")
    loaded = kd.load(tmp_path / "teacher.safetensors")
    assert record(loaded)["quantizers"] and same(loaded, model)
    found = loaded.features(batch(1)[0])["backbone.layer3"].numpy()
    assert np.array_equal(found % 0.25, np.zeros_like(found))


@pytest.mark.parametrize("step", [0, -1, float("nan"), float("inf"), "1", True])
def test_bad_steps_are_refused(step):
    with pytest.raises(kd.ArgumentError, match="step"):
        kd.surgery.quantize_features(detector(), step=step)
    with pytest.raises(kd.ArgumentError, match="form"):
        kd.surgery.quantize_features(detector(), form="log")


# The operations


def test_quantizer_commutes_with_pooling_of_regions():
    random = np.random.default_rng(3)
    x = (4 * random.standard_normal((1, 5, 12, 12))).astype(np.float32)
    boxes = np.array([[0, 0, 0, 90, 60], [0, 20, 10, 70, 95]], np.float32)
    pool = {"output_size": 3, "spatial_scale": 0.125}
    first = kd.ops.roi_pool(quantization.quantize(x), boxes, **pool).numpy()
    last = quantization.quantize(kd.ops.roi_pool(kd.tensor(x), boxes, **pool)).numpy()
    assert np.array_equal(first, last)
    assert len(np.unique(first)) > 3


def test_quantizer_against_numpy_and_its_gradient():
    random = np.random.default_rng(4)
    x = (3 * random.standard_normal((2, 7, 5, 3))).astype(np.float32)
    wanted = np.maximum(0, np.ceil(x.astype(np.float64) - 0.5)).astype(np.float32)
    assert np.array_equal(quantization.quantize(x).numpy(), wanted)
    upstream = random.standard_normal(x.shape).astype(np.float32)
    for relu, passes in ((False, np.ones_like(x)), (True, x > 0)):
        leaf = kd.tensor(x, requires_grad=True)
        quantization.quantize(leaf, relu=relu).backward(upstream)
        assert np.array_equal(leaf.grad.numpy(), upstream * passes)
    with pytest.raises(kd.ArgumentError, match="NaN"):
        quantization.quantize(np.array([1.0, np.nan]))


def test_binary_convolution_of_arrays():
    random = np.random.default_rng(5)
    x = random.standard_normal((1, 70, 6, 5)).astype(np.float32)
    w = random.standard_normal((9, 70, 3, 3)).astype(np.float32)
    b = random.standard_normal(9).astype(np.float32)
    options = {"padding": 1, "stride": 2}
    signs = np.where(x < 0, -1, 1), np.where(w < 0, -1, 1)
    alpha = np.abs(w.astype(np.float64)).mean(axis=(1, 2, 3))
    sums = kd.conv2d(*(s.astype(np.float32) for s in signs), **options).numpy()
    wanted = np.rint(sums) * alpha[None, :, None, None] + b[None, :, None, None]
    found = quantization.binary_conv2d(x, w, b, **options).numpy()
    # One rounding each of a product and a sum.
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    tracked = quantization.binary_conv2d(x, kd.tensor(w, requires_grad=True), b, **options)
    np.testing.assert_allclose(tracked.numpy(), wanted, rtol=1e-5, atol=1e-4)
    with pytest.raises(kd.ArgumentError, match="rule"):
        quantization.binary_conv2d(x, w, rule="theirs")
