"""Teachers in order: multi-teacher progressive distillation (Cao et al., ICML 2023).

plan = kd.mtpd.plan(student, {"r50": a, "r101": b, "x101": c}, train, val)
history = kd.mtpd.distill(student, plan, train, epochs_per_teacher=12, val=val, out="runs/x")
"""

from __future__ import annotations

from .baselines import alone, direct, ensemble
from .costs import adaptation_costs
from .matrix import CostMatrix, LevelCost
from .plan import Plan, plan
from .probing import Probe, probe
from .progressive import distill
from .progressive_history import ProgressiveHistory
from .searches import all_orders, ascending_performance, brute_force, random_order, shortest_path
from .selection import Selection, backward_greedy_selection

__all__ = [
    "CostMatrix",
    "LevelCost",
    "Plan",
    "Probe",
    "ProgressiveHistory",
    "Selection",
    "adaptation_costs",
    "all_orders",
    "alone",
    "ascending_performance",
    "backward_greedy_selection",
    "brute_force",
    "direct",
    "distill",
    "ensemble",
    "plan",
    "probe",
    "random_order",
    "shortest_path",
]
