"""Pruning methods, one file each: pure functions over an explicit state."""

from bap_jax.pruners.admm import ADMMState, admm, admm_learning_rate, robust_admm
from bap_jax.pruners.at_start import WEIGHT, at_start
from bap_jax.pruners.dense import DenseState, dense
from bap_jax.pruners.edge_popup import edge_popup
from bap_jax.pruners.fixed import FixedState, fixed
from bap_jax.pruners.flying_bird import FlyingBirdState, flying_bird, flying_bird_plus
from bap_jax.pruners.harp import HARPState, harp
from bap_jax.pruners.hydra import hydra
from bap_jax.pruners.magnitude import CappedState, MagnitudeState, magnitude
from bap_jax.pruners.quantized import quantized
from bap_jax.pruners.robust_bird import RobustBirdState, drawn, robust_bird
from bap_jax.pruners.score_search import ScoreState
from bap_jax.pruners.sharpness import awp, s2ap
from bap_jax.pruners.structured import structured
from bap_jax.pruners.twin_rep import TwinRepState, twin_rep
from bap_jax.pruners.wrap_optax import wrap_optax

__all__ = [
    "WEIGHT",
    "ADMMState",
    "CappedState",
    "DenseState",
    "FixedState",
    "FlyingBirdState",
    "HARPState",
    "MagnitudeState",
    "RobustBirdState",
    "ScoreState",
    "TwinRepState",
    "admm",
    "admm_learning_rate",
    "at_start",
    "awp",
    "dense",
    "drawn",
    "edge_popup",
    "fixed",
    "flying_bird",
    "flying_bird_plus",
    "harp",
    "hydra",
    "magnitude",
    "quantized",
    "robust_admm",
    "robust_bird",
    "s2ap",
    "structured",
    "twin_rep",
    "wrap_optax",
]
