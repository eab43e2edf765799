"""Training: the state pytree and the one train step."""

from bap_jax.training.average import Average, with_average
from bap_jax.training.state import TrainState, init_state
from bap_jax.training.step import EPSILON_QUANTILES, Metrics, TrainStep, make_train_step

__all__ = ["EPSILON_QUANTILES", "Average", "Metrics", "TrainState", "TrainStep", "init_state", "make_train_step", "with_average"]
