"""What training minimises: loss slots over clean and adversarial outputs. One file per idea; each is ``Loss(init, value)``."""

from bap_jax.losses.mart import MARTState, mart
from bap_jax.losses.mix import clean, madry, mix, mma
from bap_jax.losses.trades import TRADESState, trades

__all__ = ["MARTState", "TRADESState", "clean", "madry", "mart", "mix", "mma", "trades"]
