"""Training: the state pytree and the one train step."""

from bap_jax.training.state import TrainState, init_state
from bap_jax.training.step import EPSILON_QUANTILES, Metrics, TrainStep, make_train_step

__all__ = ["EPSILON_QUANTILES", "Metrics", "TrainState", "TrainStep", "init_state", "make_train_step"]
