"""Cases for losses of whole feature maps: FitNets, AT, CWD, FGD, MGD, PKD, feature matching.

Each mechanism also has a case in which the student has other channels and reaches the teacher's
through a 1x1 convolution that is learned along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import references_features as formulas
import third_party
from case import Case, maps

import kdswift as kd
from kdswift.losses.fgd import FGD
from kdswift.losses.mgd import mgd_mask

Arrays = dict[str, Any]
FORMULA = "the formula, in PyTorch"
ADAPTER = ("adapter.weight", "adapter.bias")


def adapted(inputs: Mapping[str, Any]) -> Any:
    """The student's map, through its adapter where there is one."""
    if "adapter.weight" not in inputs:
        return inputs["student"]
    return kd.conv2d(inputs["student"], inputs["adapter.weight"], inputs["adapter.bias"])


def with_adapter(case: Case) -> Case:
    """The same mechanism with three channels more on the student's side."""

    def inputs(shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
        made = case.inputs(shape, rng)
        images, channels, height, width = shape
        own = channels + 3
        made["student"] = rng.standard_normal((images, own, height, width)).astype(np.float32)
        weight = rng.standard_normal((channels, own, 1, 1)) / own**0.5
        made["adapter.weight"] = weight.astype(np.float32)
        made["adapter.bias"] = (0.1 * rng.standard_normal(channels)).astype(np.float32)
        return made

    # CWD and PKD do not see a channel's shift: the bias has the gradient 0, all else is rounding.
    blind = case.name.startswith(("cwd", "pkd"))
    learned = (*case.learned, *(ADAPTER[:1] if blind else ADAPTER))
    return replace(case, name=f"{case.name}, adapter", inputs=inputs, learned=learned)


def maps_alone(
    name: str, source: str, ours: Callable[..., Any], theirs: Callable[..., Any]
) -> list[Case]:
    """A loss of student and teacher alone, without and with adapter."""
    case = Case(
        name,
        source,
        maps,
        lambda inputs: ours(adapted(inputs), inputs["teacher"]),
        lambda inputs: theirs(formulas.adapted(inputs), inputs["teacher"]),
    )
    return [case, with_adapter(case)]


def written_out() -> list[Case]:
    """Losses of two maps beside their formulas."""
    losses = kd.losses
    return [
        *maps_alone("feature_matching", FORMULA, losses.feature_matching, formulas.mean_squares),
        *maps_alone("fitnets", FORMULA, losses.fitnets, formulas.unit_squares),
        *maps_alone(
            "fitnets, raw",
            FORMULA,
            lambda s, t: losses.fitnets(s, t, normalize=False),
            formulas.hint_half,
        ),
        *maps_alone(
            "attention_transfer, paper",
            FORMULA,
            lambda s, t: losses.attention_transfer(s, t, "paper"),
            lambda s, t: formulas.attention_paper(s, t, 1e3),
        ),
        *maps_alone(
            "cwd, cross-entropy",
            FORMULA,
            lambda s, t: losses.cwd(s, t, form="ce"),
            lambda s, t: formulas.cwd(s, t, 1.0, entropy=False),
        ),
        *maps_alone(
            "cwd, temperature 4",
            FORMULA,
            lambda s, t: losses.cwd(s, t, 4.0),
            lambda s, t: formulas.cwd(s, t, 4.0, entropy=True),
        ),
        *maps_alone("pkd", FORMULA, losses.pkd, formulas.pearson),
    ]


def published() -> list[Case]:
    """Losses of two maps beside the classes of mmrazor and torchdistill."""
    losses, found = kd.losses, []
    if third_party.available("mmrazor"):
        squares = third_party.mmrazor("losses/l2_loss.py", "L2Loss")
        tool = "mmrazor 1.0.0 {}".format
        found += maps_alone("fitnets", tool("L2Loss"), losses.fitnets, squares())
        found += maps_alone(
            "fitnets, mean",
            tool("L2Loss(div_element)"),
            lambda s, t: losses.fitnets(s, t, reduction="mean"),
            squares(div_element=True),
        )
        found += maps_alone(
            "fitnets, distance",
            tool("L2Loss(dist)"),
            lambda s, t: losses.fitnets(s, t, distance=True),
            squares(dist=True),
        )
        found += maps_alone(
            "attention_transfer",
            tool("ATLoss"),
            losses.attention_transfer,
            third_party.mmrazor("losses/at_loss.py", "ATLoss")(loss_weight=1e3),
        )
        divergence = third_party.mmrazor("losses/cwd.py", "ChannelWiseDivergence")
        found += maps_alone("cwd", tool("ChannelWiseDivergence"), losses.cwd, divergence())
        found += maps_alone(
            "cwd, temperature 4",
            tool("ChannelWiseDivergence(tau=4)"),
            lambda s, t: losses.cwd(s, t, 4.0),
            divergence(tau=4.0),
        )
        pearson = third_party.mmrazor("losses/pkd_loss.py", "PKDLoss")
        found += maps_alone("pkd", tool("PKDLoss"), losses.pkd, pearson())
    if third_party.available("torchdistill"):
        attention = third_party.torchdistill("ATLoss")
        found += maps_alone(
            "attention_transfer",
            "torchdistill 1.1.5 ATLoss(code)",
            lambda s, t: losses.attention_transfer(s, t, beta=1.0),
            attention({}, mode="code").compute_at_loss,
        )
        paper = attention({}, mode="paper")
        found += maps_alone(
            "attention_transfer, paper",
            "torchdistill 1.1.5 ATLoss(paper)",
            lambda s, t: losses.attention_transfer(s, t, "paper", beta=1.0),
            lambda s, t: paper.compute_at_loss_paper(s, t) / len(s),
        )
    return found


# FGD


def fgd_inputs(shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    """Maps with boxes: some overlap, some touch the border, the last image has none."""
    made = maps(shape, rng)
    sizes = [(float(h), float(w)) for h, w in rng.integers(90, 130, (shape[0], 2))]
    boxes = []
    for index, (height, width) in enumerate(sizes):
        corner = rng.uniform(-5, 80, (0 if index and index == shape[0] - 1 else 4, 2))
        far = np.minimum(corner + rng.uniform(1, 60, corner.shape), (width, height))
        boxes.append(np.concatenate([corner, far], 1).astype(np.float32))
    return {**made, "boxes": boxes, "sizes": sizes}


def fgd_context_inputs(shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    """The same with context blocks whose last layer is not zero."""
    made = fgd_inputs(shape, rng)
    for name, value in FGD(shape[1]).state_dict().items():
        noise = 0.2 * rng.standard_normal(value.shape)
        made[f"context.{name}"] = (value + noise).astype(np.float32)
    return made


def context(inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    blocks = {
        name.removeprefix("context."): value
        for name, value in inputs.items()
        if name.startswith("context.")
    }
    return blocks or None


def fgd_case(name: str, inputs: Callable[..., Arrays], **options: float) -> list[Case]:
    case = Case(
        name,
        FORMULA,
        inputs,
        lambda i: kd.losses.fgd(
            adapted(i), i["teacher"], i["boxes"], i["sizes"], context(i), **options
        ),
        lambda i: formulas.fgd(
            formulas.adapted(i), i["teacher"], i["boxes"], i["sizes"], context(i), **options
        ),
    )
    if inputs is fgd_context_inputs:
        learned = [f"context.{key}" for key in FGD(8).state_dict()]
        case = replace(case, learned=("student", *learned))
    return [case, with_adapter(case)]


def focal() -> list[Case]:
    nothing = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "relation": 0.0}
    return [
        *fgd_case("fgd", fgd_inputs),
        *fgd_case("fgd, FCOS", fgd_inputs, temperature=0.8, alpha=1.6e-3, beta=8e-4, gamma=8e-4),
        *fgd_case("fgd, foreground", fgd_inputs, **{**nothing, "alpha": 1.0}),
        *fgd_case("fgd, background", fgd_inputs, **{**nothing, "beta": 1.0}),
        *fgd_case("fgd, attention", fgd_inputs, **{**nothing, "gamma": 1.0}),
        *fgd_case("fgd, context blocks", fgd_context_inputs),
        *fgd_case("fgd, relation", fgd_context_inputs, **{**nothing, "relation": 1.0}),
    ]


# MGD

GENERATOR = ("0.weight", "0.bias", "2.weight", "2.bias")


def mgd_inputs(shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    made = maps(shape, rng)
    made["mask"] = mgd_mask(shape, 0.5, rng)
    channels = shape[1]
    for name in GENERATOR:
        size = (channels, channels, 3, 3) if name.endswith("weight") else channels
        noise = rng.standard_normal(size) / (9 * channels) ** 0.5
        made[f"generator.{name}"] = noise.astype(np.float32)
    return made


def generator(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: inputs[f"generator.{name}"] for name in GENERATOR}


def mgd_by_mmrazor(inputs: Mapping[str, Any]) -> Any:
    """mmrazor's connector with these weights and this mask, then its loss."""
    import torch

    channels = inputs["teacher"].shape[1]
    connector = third_party.mmrazor("architectures/connectors/mgd_connector.py", "MGDConnector")(
        channels, channels, lambda_mgd=0.5
    )
    loss = third_party.mmrazor("losses/mgd_loss.py", "MGDLoss")()
    weights = {f"generation.{name}": value for name, value in generator(inputs).items()}
    draws = 1 - inputs["mask"]  # above 1 - 0.5 where the mask is 0
    original, torch.rand = torch.rand, lambda _size: draws
    try:
        made = torch.func.functional_call(connector, weights, (formulas.adapted(inputs),))
    finally:
        torch.rand = original
    return loss(made, inputs["teacher"])


def masked() -> list[Case]:
    case = Case(
        "mgd",
        FORMULA,
        mgd_inputs,
        lambda i: kd.losses.mgd(adapted(i), i["teacher"], i["mask"], generator(i)),
        lambda i: formulas.mgd(formulas.adapted(i), i["teacher"], i["mask"], generator(i), 2e-5),
        learned=("student", *(f"generator.{name}" for name in GENERATOR)),
    )
    found = [case, with_adapter(case)]
    if third_party.available("mmrazor"):
        source = "mmrazor 1.0.0 MGDConnector + MGDLoss"
        case = replace(case, source=source, reference=mgd_by_mmrazor)
        found += [case, with_adapter(case)]
    return found


def weighted_inputs(shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    images, channels, height, width = shape
    return {
        **maps(shape, rng),
        "spatial": rng.random((images, 1, height, width)).astype(np.float32),
        "channels": rng.random((images, channels)).astype(np.float32),
    }


WEIGHTED = Case(
    "weighted_squared_error",
    FORMULA,
    weighted_inputs,
    lambda i: kd.losses.weighted_squared_error(
        adapted(i), i["teacher"], i["spatial"], i["channels"]
    ),
    lambda i: formulas.weighted(formulas.adapted(i), i["teacher"], i["spatial"], i["channels"]),
)

CASES: list[Case] = [
    *written_out(),
    *published(),
    *focal(),
    *masked(),
    WEIGHTED,
    with_adapter(WEIGHTED),
]
