"""Pruning methods, one file each: pure functions over an explicit state."""

from bap_jax.pruners.dense import DenseState, FixedState, dense
from bap_jax.pruners.magnitude import CappedState, MagnitudeState, magnitude

__all__ = ["CappedState", "DenseState", "FixedState", "MagnitudeState", "dense", "magnitude"]
