"""What training minimises: loss slots over clean and adversarial outputs. One file per idea; each is ``Loss(init, value)``."""

from bap_jax.losses.distill import DistillState, Teacher, distill
from bap_jax.losses.distill_hsic import DistillHSICState, distill_hsic
from bap_jax.losses.mart import MARTState, mart
from bap_jax.losses.mix import clean, madry, mix, mma
from bap_jax.losses.trades import TRADESState, trades

__all__ = [
    "DistillHSICState",
    "DistillState",
    "MARTState",
    "TRADESState",
    "Teacher",
    "clean",
    "distill",
    "distill_hsic",
    "madry",
    "mart",
    "mix",
    "mma",
    "trades",
]
