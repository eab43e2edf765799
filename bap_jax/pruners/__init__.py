"""Pruning methods, one file each: pure functions over an explicit state."""

from bap_jax.pruners.dense import DenseState, dense
from bap_jax.pruners.magnitude import MagnitudeState, magnitude

__all__ = ["DenseState", "MagnitudeState", "dense", "magnitude"]
