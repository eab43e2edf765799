"""Budgets: which adversarial examples training sees. One file per idea; each budget is ``Budget(init, perturb)``."""

from bap_jax.attacks.friendly_pgd import friendly_pgd
from bap_jax.budgets.cat import CATState, cat
from bap_jax.budgets.cutoff import (
    Cutoff,
    RunningMean,
    cutoff_scale_epsilon,
    cutoff_scale_perturbation,
    cutoff_value,
    parse_cutoff,
    parse_wrong,
)
from bap_jax.budgets.cutoff_scale import CutoffScaleState, Search, Searched, cutoff_scale, deepfool_search, pgd_search
from bap_jax.budgets.fat import FATState, fat
from bap_jax.budgets.iaat import IAATState, iaat
from bap_jax.budgets.margin import Margin, margin_search
from bap_jax.budgets.mma import MMAState, mma
from bap_jax.budgets.none import none
from bap_jax.budgets.uniform import BudgetAttack, UniformState, uniform
from bap_jax.budgets.way import ball_way

__all__ = [
    "BudgetAttack",
    "CATState",
    "Cutoff",
    "CutoffScaleState",
    "FATState",
    "IAATState",
    "MMAState",
    "Margin",
    "RunningMean",
    "Search",
    "Searched",
    "UniformState",
    "ball_way",
    "cat",
    "cutoff_scale",
    "cutoff_scale_epsilon",
    "cutoff_scale_perturbation",
    "cutoff_value",
    "deepfool_search",
    "fat",
    "friendly_pgd",
    "iaat",
    "margin_search",
    "mma",
    "none",
    "parse_cutoff",
    "parse_wrong",
    "pgd_search",
    "uniform",
]
