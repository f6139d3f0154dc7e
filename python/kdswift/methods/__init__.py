"""Distillation methods as data: which outputs of student and teacher are compared, and how.

kd.methods.Chen2017()                                   # a published method
kd.methods.CWD() + 0.5 * kd.methods.PKD()               # a weighted sum
kd.methods.FGD().during(start=500, ramp=500)            # acting from step 500 on
kd.methods.PKD() + kd.Method([kd.Term("backbone.layer2", loss=my_loss)])   # with a term of your own
"""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from .base import Method, Part
from .chen2017 import Chen2017
from .crosskd import CrossKD
from .feature_maps import CWD, PKD, AttentionTransfer, FeatureMatching, FitNets
from .fgd import FGD
from .gid import GID
from .localization import LD
from .masked import FGFI, FRS, DeFeat
from .mgd import MGD
from .mimic2017 import Mimic2017
from .quantization_mimic import QuantizationMimic
from .soft_labels import SoftLabels
from .task_integration import TaskIntegration
from .term import Term
from .text import parse
from .window import Window

__all__ = [
    "CWD",
    "FGD",
    "FGFI",
    "FRS",
    "GID",
    "LD",
    "MGD",
    "PKD",
    "AttentionTransfer",
    "Chen2017",
    "CrossKD",
    "DeFeat",
    "FeatureMatching",
    "FitNets",
    "Method",
    "Mimic2017",
    "Part",
    "QuantizationMimic",
    "SoftLabels",
    "TaskIntegration",
    "Term",
    "Window",
    "as_method",
    "by_name",
    "names",
]


def as_method(value: Any) -> Method:
    """A method from itself, a `Term`, a name, or a list of terms; None is `Chen2017()`."""
    if value is None:
        return Chen2017()
    if isinstance(value, Method):
        return value
    if isinstance(value, Term):
        return Method([value])
    if isinstance(value, str):
        return by_name(value)
    if isinstance(value, (list, tuple)):
        return Method(value)
    raise ArgumentError(f"method must be one of kd.methods or a kd.Method, got {value!r}")


def names() -> dict[str, type[Method]]:
    """The published methods by the names that the command line uses."""
    classes = [value for value in globals().values() if isinstance(value, type)]
    published = [c for c in classes if issubclass(c, Method) and getattr(c, "label", "")]
    return {c.label: c for c in sorted(published, key=lambda c: c.label)}  # type: ignore[attr-defined]


def by_name(text: str) -> Method:
    """A published method by its name, such as "cwd", or a sum: ``"cwd:weight=3 + 0.5*pkd"``.

    Raises ``ArgumentError`` for names and options that are not known.
    """
    return parse(text, names())
