"""Swin Transformers under detectors, and against torchvision where it is there."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

import kdswift as kd
from kdswift import backbones
from kdswift.errors import ArgumentError, ShapeError

NARROW = 0.34  # one head of 32 channels in stage1
INDEX = "backbone.features.1.0.attn.relative_position_index"


def detector(backbone, size=64):
    """A detector whose head is next to nothing, on images that are only divided by 255."""
    return kd.FasterRCNN(
        *(backbone, 3, None, kd.Anchors((32,), (1,)), (size, size)),
        image_mean=(0, 0, 0),
        image_std=(1, 1, 1),
        rpn={"channels": 8},
        roi={"hidden": [8], "pool_size": 1, "dropout": 0},
        seed=0,
    )


# Options


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("swin_t", {"norm": "group"}, "layer normalization only"),
        ("swin_t", {"norm": None}, "norm is None"),
        ("swin_t", {"drop_path": 1}, "drop_path is 1"),
        ("swin_t", {"drop_path": float("nan")}, "drop_path is nan"),
        ("swin_s", {"dcn_stages": (2,)}, "dcn_stages are for resnet18"),
        ("resnet18", {"drop_path": 0.1}, "drop_path is for swin_t, swin_s"),
    ],
)
def test_wrong_options_are_named(name, options, words):
    with pytest.raises(ArgumentError, match=words):
        backbones.Backbone(name, **options)


def test_options_reach_the_engine():
    made = detector(backbones.swin_s(NARROW, 3, 2, False, 0.3))
    found = made.configuration["backbone"]
    assert (found["name"], found["output_norm"], found["drop_path"]) == ("swin_s", False, 0.3)
    names = made.state_dict()
    assert "backbone.features.5.17.mlp.3.bias" in names
    assert not [name for name in names if name.startswith("backbone.norm")]


# Files and copies


def test_positions_are_saved_and_nothing_else_may_be_loaded(tmp_path):
    model = detector(backbones.swin_t(NARROW))
    state = model.state_dict()
    assert state[INDEX].dtype == np.int64
    model.save(tmp_path / "swin.safetensors")
    assert tiny.same(kd.load(tmp_path / "swin.safetensors"), model)
    assert tiny.same(model.clone(), model)
    with pytest.raises(ArgumentError, match="relative_position_index is fixed by the model"):
        model.load_state_dict({**state, INDEX: state[INDEX] + 1})
    with pytest.raises(ShapeError, match="int64"):
        model.load_state_dict({**state, INDEX: state[INDEX].astype(np.float32)})


# Under detectors

LIMITS = {"image_size": (tiny.SIZE, tiny.SIZE), "class_names": tiny.CLASSES, "seed": 0}


def under(kind: str) -> kd.Detector:
    backbone = backbones.swin_t(NARROW, drop_path=0.1)
    classes = len(tiny.CLASSES)
    if kind == "faster_rcnn":
        roi = {"batch": 16, "hidden": [32], "pool_size": 3}
        return kd.FasterRCNN(backbone, classes, kd.FPN(channels=16), roi=roi, **LIMITS)
    return kd.RetinaNet(backbone, classes, kd.FPN(channels=16), **LIMITS)


@pytest.mark.parametrize("kind", ["faster_rcnn", "retinanet"])
def test_learns_under_a_pyramid(kind, tmp_path):
    model = under(kind)
    before = model.state_dict()
    history = model.fit(tiny.scenes(4), epochs=2, out=tmp_path, **tiny.QUIET)
    assert all(np.isfinite(row["loss"]) for row in history.rows)
    after = model.state_dict()
    moved = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    # Positions stay and whatever learns has moved; RetinaNet's pyramid does not read stage1.
    unread = {f"backbone.body.norm0.{part}" for part in ("weight", "bias")}
    learned = {name for name, _ in model.named_parameters()}
    assert moved == (learned - unread if kind == "retinanet" else learned)
    images, _ = tiny.batch(1)
    assert model.predict(images)[0].boxes.shape[1] == 4


def test_drop_path_follows_the_seed():
    model = under("retinanet").train()
    images, targets = tiny.batch(2)

    def total(seed):
        return sum(loss.item() for loss in model.losses(images, targets, seed=seed).values())

    assert total(1) == total(1)
    assert len({total(seed) for seed in range(8)}) > 1


def test_flops_are_the_published_ones():
    model = detector(backbones.swin_t(output_norm=False), 224)
    plain = detector(backbones.swin_t(NARROW, output_norm=False), 224)
    # torchvision counts 4.49 billion multiply-adds; the region head of this detector is nothing.
    assert abs(model.flops(224) / 2 / 4.49e9 - 1) < 0.02
    assert plain.flops(224) < model.flops(224) / 6


def test_bf16_learns_like_fp32(tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        model = under("retinanet")
        try:
            history = model.fit(
                *(tiny.scenes(4), 1), out=tmp_path / precision, precision=precision, **tiny.QUIET
            )
        except ArgumentError as error:
            pytest.skip(str(error))  # a processor without bfloat16
        losses[precision] = history.rows[0]["loss"]
    # Roundings to 8 bits between float32 sums, normalized again in each block.
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


# Operations


def test_gelu_is_exact():
    x = np.array([-3, -1, -0.5, 0, 0.5, 1, 3], np.float32)
    # x (1 + erf(x / √2)) / 2 from tables of the normal distribution.
    below = [0.001349898, 0.158655254, 0.308537539, 0.5, 0.691462461, 0.841344746, 0.998650102]
    np.testing.assert_allclose(kd.gelu(x).numpy(), x * below, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(kd.tensor(x).gelu().numpy(), kd.gelu(x).numpy())


def test_patches_are_merged_in_order():
    x = np.arange(2 * 3 * 1, dtype=np.float32).reshape(1, 2, 3, 1)
    found = kd.merge_patches(x).numpy()
    assert found.tolist() == [[[[0, 3, 1, 4], [2, 5, 0, 0]]]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_heads": 3}, "multiple of 3 heads"),
        ({"num_heads": 2, "window": 2.0}, "window is 2.0"),
        ({"num_heads": 2, "window": 3}, "table"),
        ({"num_heads": 2, "window": 2, "shift": 2}, "shift 2"),
    ],
)
def test_wrong_calls_are_named(options, words):
    with pytest.raises((ArgumentError, ShapeError), match=words):
        kd.window_attention(np.zeros((1, 4, 4, 12)), np.zeros((9, 2)), **options)


# Against torchvision


@pytest.mark.parametrize(
    ("size", "shift"), [((14, 21), 3), ((10, 17), 3), ((5, 15), 3), ((7, 7), 3)]
)
def test_window_attention_equals_torchvision(size, shift):
    torch = pytest.importorskip("torch")
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    random = np.random.default_rng(3)
    channels, heads = 24, 3
    draw = {
        "x": (2, *size, channels),
        "weight": (3 * channels, channels),
        "bias": (3 * channels,),
        "table": (169, heads),
    }
    arrays = {n: random.normal(size=s).astype(np.float32) for n, s in draw.items()}
    theirs = {n: torch.from_numpy(a).requires_grad_() for n, a in arrays.items()}
    mine = {n: kd.tensor(a, requires_grad=True) for n, a in arrays.items()}
    module = swin.ShiftedWindowAttention(channels, [7, 7], [shift, shift], heads)
    bias = theirs["table"][module.relative_position_index].view(49, 49, -1)
    expected = swin.shifted_window_attention(
        *(theirs["x"], theirs["weight"], torch.eye(channels)),
        bias.permute(2, 0, 1)[None],
        *([7, 7], heads),
        shift_size=[shift, shift],
        qkv_bias=theirs["bias"],
    )
    qkv = kd.linear(mine["x"], mine["weight"], mine["bias"])
    found = kd.window_attention(qkv, mine["table"], heads, 7, shift, mine["bias"])
    # Scores of some dozens in size stand in exponents, each rounded to about 4e-6.
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), atol=1e-4)
    upstream = random.normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.from_numpy(upstream))
    (found * upstream).sum().backward()
    for name, tensor in theirs.items():
        gap = np.abs(mine[name].grad.numpy() - tensor.grad.numpy()).max()
        assert gap <= 1e-4 * tensor.grad.abs().max().item(), name


@pytest.mark.parametrize("name", backbones.SWINS)
def test_features_and_gradients_equal_torchvision(name):
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None).eval()
    with torch.no_grad():
        for path, parameter in network.named_parameters():
            if path.endswith("relative_position_bias_table"):
                parameter.normal_(0, 0.5)
            elif parameter.ndim == 1:  # biases and norms off their first values
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model = detector(getattr(backbones, name)(output_norm=False), 96)
    report = load(model, network)
    assert not [key for key in report.missing if key.startswith("backbone.")]
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    found = model.features(image)
    value = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mine, theirs = 0, 0
    for index, part in enumerate(network.features):
        value = part(value)
        if index % 2 == 0:
            continue
        own = found[f"backbone.stage{index // 2 + 1}"]
        expected = value.permute(0, 3, 1, 2)
        # Both in single precision: roundings of up to 24 blocks, far from any wrong block's.
        gap = np.abs(own.numpy() - expected.detach().numpy()).max()
        assert gap <= 1e-4 * expected.abs().max().item(), index
        upstream = random.normal(size=own.shape).astype(np.float32)
        mine = mine + (own * upstream).sum()
        theirs = theirs + (expected * torch.from_numpy(upstream)).sum()
    mine.backward()
    theirs.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    wanted = {n: p for n, p in network.named_parameters() if p.grad is not None}
    assert gradients.keys() == {f"backbone.{n}" for n in wanted}
    for path, parameter in wanted.items():
        gap = np.abs(gradients[f"backbone.{path}"].numpy() - parameter.grad.numpy()).max()
        assert gap <= 1e-4 * parameter.grad.abs().max().item(), path


def test_a_classifier_loads_with_the_documented_remainder():
    pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    report = load(detector(backbones.swin_t()), models.swin_t(weights=None))
    norms = {f"backbone.norm{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    assert {key for key in report.missing if key.startswith("backbone.")} == norms


def load(model, network):
    """torchvision's weights, and what they must leave over."""
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    report = model.load_state_dict(state, strict=False)
    assert not report.misshaped
    rest = {f"backbone.{name}.{part}" for name in ("norm", "head") for part in ("weight", "bias")}
    assert set(report.unexpected) == rest
    return report
