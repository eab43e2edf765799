"""bap_jax: robust pruning in JAX. Pure functions for masks, attacks and budgets, one train step, evaluation that can be trusted.

>>> import bap_jax as bap
>>> import jax.numpy as jnp
>>> bap.magnitude_masks({"kernel": jnp.array([[3.0, -1.0]])}, 0.5)["kernel"].tolist()
[[True, False]]
"""

from bap_jax import attacks, budgets, evaluation, models, pruners
from bap_jax.attacks import apgd, deepfool, fgsm, fmn, pgd
from bap_jax.errors import CheckpointError, DataError, NonFiniteError, SettingError
from bap_jax.evaluation import autoattack, evaluate, named_threat
from bap_jax.mathematics import schedules
from bap_jax.mathematics.masks import (
    apply_masks,
    compression_ratio,
    layer_sparsity,
    magnitude_masks,
    masks_from_scores,
    measured_sparsity,
)
from bap_jax.mathematics.schedules import Ramp
from bap_jax.training import TrainState, init_state, losses, make_train_step
from bap_jax.types import (
    Adversarial,
    AttackResult,
    Batch,
    Bounds,
    Budget,
    Loss,
    Model,
    Outputs,
    Pruner,
    Threat,
)

__version__ = "0.1.0"

__all__ = [
    "Adversarial",
    "AttackResult",
    "Batch",
    "Bounds",
    "Budget",
    "CheckpointError",
    "DataError",
    "Loss",
    "Model",
    "NonFiniteError",
    "Outputs",
    "Pruner",
    "Ramp",
    "SettingError",
    "Threat",
    "TrainState",
    "apgd",
    "apply_masks",
    "attacks",
    "autoattack",
    "budgets",
    "compression_ratio",
    "deepfool",
    "evaluate",
    "evaluation",
    "fgsm",
    "fmn",
    "init_state",
    "layer_sparsity",
    "losses",
    "magnitude_masks",
    "make_train_step",
    "masks_from_scores",
    "measured_sparsity",
    "models",
    "named_threat",
    "pgd",
    "pruners",
    "schedules",
]
