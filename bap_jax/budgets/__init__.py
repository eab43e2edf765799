"""Budgets: which adversarial examples training sees. One file per idea; each budget is ``Budget(init, perturb)``."""

from bap_jax.budgets.cutoff import (
    Cutoff,
    RunningMean,
    cutoff_scale_epsilon,
    cutoff_scale_perturbation,
    cutoff_value,
    parse_cutoff,
)
from bap_jax.budgets.cutoff_scale import CutoffScaleState, Search, cutoff_scale, deepfool_search, pgd_search
from bap_jax.budgets.margin import Margin, margin_search
from bap_jax.budgets.none import none
from bap_jax.budgets.uniform import BudgetAttack, UniformState, uniform

__all__ = [
    "BudgetAttack",
    "Cutoff",
    "CutoffScaleState",
    "Margin",
    "RunningMean",
    "Search",
    "UniformState",
    "cutoff_scale",
    "cutoff_scale_epsilon",
    "cutoff_scale_perturbation",
    "cutoff_value",
    "deepfool_search",
    "margin_search",
    "none",
    "parse_cutoff",
    "pgd_search",
    "uniform",
]
