"""`adaptation_costs`: how well an affine map of A's features explains B's, on unseen images."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .._numbers import check_count
from ..errors import ArgumentError
from .matrix import CostMatrix
from .measuring import Decisions, Job
from .zoo import Zoo, dataset_of, image_at


def adaptation_costs(
    models: Sequence[Any] | Mapping[str, Any],
    train: Any,
    val: Any,
    solver: str = "exact",
    names: Sequence[str] | None = None,
    levels: Any = None,
    budget: int | None = None,
    batch_size: int = 8,
    ridge: float = 0.0,
    normalize: bool = False,
    progress: bool = True,
    seed: int = 0,
    epochs: int = 1,
    learning_rate: float = 1e-2,
) -> CostMatrix:
    """C(A -> B) for all ordered pairs of models (Cao et al., ICML 2023).

    C(A -> B) = mean over levels, validation images, channels and positions of (B - W A - v)^2,
    where W, v is, per level, the 1x1 convolution with bias that fits the training images best.

    Parameters
    ----------
    models : [student, *teachers], detectors or `kd.Teacher`s, or a mapping of names to them
        Every model runs once per image, however many pairs there are. Nothing is changed.
    train, val : data sets, or loaders of them; images are taken as they are, not augmented
        `train` decides the maps, `val` what they cost.
    solver : "exact" or "sgd"
        exact: least squares from second moments, summed in float64 in one pass over `train`; memory
        does not grow with the data. sgd, the paper's: the maps are trained by Adam for `epochs`
        from `learning_rate` on; depends on all of these and on `seed`.
    names : of the models; default "student", "teacher-1", …
    levels : None: the maps that heads read, paired by stride; names of taps that all models have;
        or {model's name: taps}, paired by position
    budget : most images of `train`, and of `val`; drawn by `seed`. With the exact solver 32 images
        are tried first, then twice as many, … until every comparison of two costs into one target
        is certain to 99 % (``report["settled"]``).
    ridge : added to the Gram matrix, in parts of its mean diagonal; 0 uses the pseudo-inverse where
        that is singular. 1e-3 or so helps where there are few positions per channel.
    normalize : whether `total` is cost / variance of B's map, per level

    Where sizes differ A's map is resized (bilinear) to B's; inputs of unlike sizes do that.
    Raises ``ArgumentError`` for models without common levels or bad options, ``KDSError`` for
    features that are not finite, by model and tap.
    """
    named = name_models(models, names)
    return measure(
        *(named, train, val, solver, levels, budget, batch_size, ridge, normalize, progress, seed),
        *(epochs, learning_rate, all_comparisons),
    )


def measure(
    named: Mapping[str, Any],
    train: Any,
    val: Any,
    solver: str,
    levels: Any,
    budget: int | None,
    batch_size: int,
    ridge: float,
    normalize: bool,
    progress: bool,
    seed: int,
    epochs: int,
    learning_rate: float,
    decisions: Decisions,
) -> CostMatrix:
    """`adaptation_costs` that stops when `decisions` are settled."""
    from threadpoolctl import ThreadpoolController

    where = "adaptation_costs"
    if solver not in ("exact", "sgd"):
        raise ArgumentError(f"{where}: solver is {solver!r}, expected 'exact' or 'sgd'")
    for name, value in (("ridge", ridge), ("learning_rate", learning_rate)):
        if isinstance(value, bool) or not 0 <= value < math.inf:
            raise ArgumentError(f"{where}: {name} is {value!r}, expected a number from 0 on")
    for name, count in (("batch_size", batch_size), ("epochs", epochs)):
        check_count(count, name, where)
    if budget is not None:
        check_count(budget, "budget", where)
    train, val = dataset_of(train, "train"), dataset_of(val, "val")
    zoo = Zoo(named, levels, image_at(train, 0))
    job = Job(zoo, train, val, int(batch_size), bool(normalize), progress, int(seed))
    start = time.perf_counter()
    # NumPy's own BLAS threads would wait spinning while the engine's threads run the models: 8.9
    # seconds in place of 6.1 on two cores.
    with ThreadpoolController().select(threading_layer="pthreads").limit(limits=1):
        if solver == "exact":
            matrix = job.exact(float(ridge), budget, decisions)
        else:
            matrix = job.by_gradient(int(epochs), float(learning_rate), budget, decisions)
    matrix.report["seconds"] = round(time.perf_counter() - start, 3)
    return matrix


def name_models(models: Any, names: Sequence[str] | None) -> dict[str, Any]:
    """The models by name, the student first."""
    if isinstance(models, Mapping):
        models, names = list(models.values()), list(models) if names is None else names
    models = list(models)
    if len(models) < 2:
        raise ArgumentError("adaptation_costs: needs a student and at least one teacher")
    if names is None:
        names = ["student", *(f"teacher-{i}" for i in range(1, len(models)))]
    names = [str(name) for name in names]
    if len(names) != len(models) or len(set(names)) != len(names) or not all(names):
        raise ArgumentError(
            f"adaptation_costs: names are {', '.join(names)}, expected {len(models)} unlike ones"
        )
    return dict(zip(names, models))


def all_comparisons(costs: CostMatrix) -> list[tuple[str, str, str]]:
    """Every two costs into one target, the smaller first: any order rests on some of these."""
    result = []
    for target in costs.names:
        sources = sorted(
            (n for n in costs.names if n != target), key=lambda n: costs.cost(n, target)
        )
        result += [(target, a, b) for a, b in pairwise(sources)]
    return result
