"""Backbones by name, deformable stages, and the ResNets against torchvision where it is there."""

from __future__ import annotations

import numpy as np
import pytest

import kdswift as kd
from kdswift import backbones
from kdswift.errors import ArgumentError, ShapeError

SMALL_HEAD = {"hidden": [8], "pool_size": 1, "dropout": 0}


def detector(backbone, size=64):
    """A detector whose head is next to nothing, on images that are only divided by 255."""
    return kd.FasterRCNN(
        *(backbone, 3, None, kd.Anchors((32,), (1,)), (size, size)),
        image_mean=(0, 0, 0),
        image_std=(1, 1, 1),
        rpn={"channels": 8},
        roi=SMALL_HEAD,
        seed=0,
    )


def test_every_name_has_its_function():
    for name in backbones.NAMES:
        made = getattr(backbones, name)()
        assert made == backbones.as_backbone(name)
        assert backbones.as_backbone(made.to_dict()) == made


def test_options_reach_the_engine():
    made = backbones.resnet50(0.125, 1, None, 2, 0.0, [4, 2])
    assert made.dcn_stages == (2, 4)
    found = made.to_dict()
    assert (found["norm"], found["norm_epsilon"], found["dcn_stages"]) == ("none", 0.0, [2, 4])
    names = detector(backbones.resnet18(0.125, dcn_stages=(4,))).state_dict()
    assert names["backbone.layer4.1.conv2.conv_offset.weight"].shape == (27, 64, 3, 3)
    assert "backbone.layer3.1.conv2.conv_offset.weight" not in names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dcn_stages": (0,)}, "dcn_stages is"),
        ({"dcn_stages": (2, 2)}, "dcn_stages is"),
        ({"dcn_stages": 2}, "dcn_stages is 2"),
        ({"norm_epsilon": -1}, "norm_epsilon is -1"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon is nan"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(ArgumentError, match=words):
        backbones.resnet50(**options)


def test_only_resnets_have_deformable_stages():
    with pytest.raises(ArgumentError, match="dcn_stages are for resnet18"):
        backbones.Backbone("vgg16", dcn_stages=(2,))


def test_gradients_reach_the_offsets():
    model = detector(backbones.resnet18(0.125, norm="group", dcn_stages=(3, 4)))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    target = {"boxes": np.array([[8, 8, 44, 48]], np.float32), "labels": np.array([1])}
    sum(model.losses([image, image], [target, target], seed=1).values()).backward()
    for name, tensor in model.named_parameters():
        if "conv_offset" in name:
            assert np.abs(tensor.grad.numpy()).max() > 0, name


# Deformable convolution


def test_deformable_convolution_at_whole_offsets_is_a_shifted_one():
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 4, 6, 7)).astype(np.float32)
    weight = random.normal(size=(3, 2, 3, 3)).astype(np.float32)
    offset = np.zeros((1, 18, 6, 7), np.float32)
    offset[:, 1::2] = 1
    mask = np.full((1, 9, 6, 7), 0.5, np.float32)
    bias = np.array([1, -2, 3], np.float32)
    with pytest.raises(ShapeError, match="deform_conv2d"):  # 3 filters in 2 groups
        kd.ops.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    weight, bias = np.tile(weight, (2, 1, 1, 1)), np.tile(bias, 2)
    found = kd.ops.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    assert isinstance(found, np.ndarray)
    shifted = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))[..., 1:]
    expected = 0.5 * kd.conv2d(shifted, weight, padding=1, groups=2).numpy()
    expected += bias[None, :, None, None]
    # The column that the pad cut off is read by the first places of the first column only.
    np.testing.assert_allclose(found[..., 1:], expected[..., 1:], atol=1e-5)
    assert np.abs(found[..., 0] - expected[..., 0]).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offset": np.zeros((1, 17, 5, 5))}, r"offset \[1, 17, 5, 5\]"),
        ({"offset": np.zeros((18, 5, 5))}, r"offset \(18, 5, 5\)"),
        ({"mask": np.zeros((1, 8, 5, 5))}, r"mask \[1, 8, 5, 5\]"),
        ({"bias": np.zeros((1, 2))}, r"bias \(1, 2\)"),
        ({"padding": 1.5}, "padding is 1.5"),
        ({"stride": 0}, "stride"),
    ],
)
def test_wrong_calls_are_named(changes, words):
    arguments = {
        "input": np.zeros((1, 4, 5, 5)),
        "offset": np.zeros((1, 18, 5, 5)),
        "weight": np.zeros((2, 4, 3, 3)),
        "padding": 1,
    }
    with pytest.raises((ArgumentError, ShapeError), match=words):
        kd.ops.deform_conv2d(**{**arguments, **changes})


# Against torchvision


@pytest.mark.parametrize("name", [*backbones.RESNETS, "resnet50 dilated"])
def test_features_equal_torchvision(name):
    name, dilated = name.split()[0], " " in name
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    models = torchvision.models
    if name == "resnext101_32x4d":  # torchvision has its parts only
        bottleneck = models.resnet.Bottleneck
        network = models.ResNet(bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4).eval()
    else:
        options = {"replace_stride_with_dilation": [False, False, True]} if dilated else {}
        network = getattr(models, name)(weights=None, **options).eval()
    with torch.no_grad():
        for path, module in network.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # Branches smaller than the shortcuts, or values would double with each block.
                last = path.endswith("bn3") or (path.endswith("bn2") and name < "resnet50")
                module.weight.uniform_(0.5, 1).mul_(0.3 if last else 1)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    model = detector(kd.backbones.resnet50(output_stride=16) if dilated else name)
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    report = model.load_state_dict(state, strict=False)
    assert not [key for key in report.missing if key.startswith("backbone.")]
    assert not report.misshaped
    assert set(report.unexpected) == {"backbone.fc.weight", "backbone.fc.bias"}
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = model.features(image)
    with torch.no_grad():
        value = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        value = network.maxpool(network.relu(network.bn1(network.conv1(value))))
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            value = getattr(network, layer)(value)
            # Both in single precision: roundings of up to 152 layers, far from any wrong layer's.
            gap = np.abs(found[f"backbone.{layer}"].numpy() - value.numpy()).max()
            assert gap <= 1e-4 * value.abs().max().item(), layer


def test_deformable_convolution_equals_torchvision():
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    random = np.random.default_rng(1)
    shapes = {"input": (2, 12, 9, 8), "offset": (2, 36, 5, 4), "weight": (6, 6, 3, 3)}
    shapes |= {"bias": (6,), "mask": (2, 18, 5, 4)}
    arrays = {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    upstream = random.normal(size=(2, 6, 5, 4)).astype(np.float32)
    theirs = {n: torch.from_numpy(a).requires_grad_() for n, a in arrays.items()}
    mine = {n: kd.tensor(a, requires_grad=True) for n, a in arrays.items()}
    expected = ops.deform_conv2d(**theirs, stride=2, padding=1)
    found = kd.ops.deform_conv2d(**mine, stride=2, padding=1)
    # Sums of 54 products of numbers around 1, in another order.
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), atol=2e-5)
    expected.backward(torch.from_numpy(upstream))
    (found * upstream).sum().backward()
    for name in shapes:
        gap = np.abs(mine[name].grad.numpy() - theirs[name].grad.numpy()).max()
        assert gap <= 1e-4 * max(1, theirs[name].grad.abs().max().item()), name
