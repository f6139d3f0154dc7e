"""Why a student learned what it learned: losses against scores, landscapes, similar features.

gap = kd.analysis.generalisation_gap({"alone": a, "distilled": b})
landscape = kd.analysis.loss_landscape(model, train)
similarity = kd.analysis.cka(student, teacher, val)
"""

from __future__ import annotations

from .alignment import Similarity, cka
from .gap import Gap, generalisation_gap
from .landscape import Landscape, loss_landscape
from .sharpness import Sharpness, sharpness

__all__ = [
    "Gap",
    "Landscape",
    "Sharpness",
    "Similarity",
    "cka",
    "generalisation_gap",
    "loss_landscape",
    "sharpness",
]
