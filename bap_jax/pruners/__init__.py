"""Pruning methods, one file each: pure functions over an explicit state."""

from bap_jax.pruners.dense import DenseState, dense
from bap_jax.pruners.fixed import FixedState, fixed
from bap_jax.pruners.magnitude import CappedState, MagnitudeState, magnitude
from bap_jax.pruners.wrap_optax import wrap_optax

__all__ = ["CappedState", "DenseState", "FixedState", "MagnitudeState", "dense", "fixed", "magnitude", "wrap_optax"]
