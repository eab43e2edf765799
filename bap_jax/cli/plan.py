"""Now :mod:`bap_jax.runs.plan`."""

from bap_jax.cli._moved import moved

__getattr__ = moved(__name__, "bap_jax.runs.plan")
