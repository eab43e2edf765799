"""Training: the state pytree and the one train step."""

from bap_jax.training.average import Average, with_average
from bap_jax.training.network import network
from bap_jax.training.parts import by_part
from bap_jax.training.state import TrainState, init_state
from bap_jax.training.step import EPSILON_QUANTILES, Metrics, TrainStep, make_train_step

__all__ = [
    "EPSILON_QUANTILES",
    "Average",
    "Metrics",
    "TrainState",
    "TrainStep",
    "by_part",
    "init_state",
    "make_train_step",
    "network",
    "with_average",
]
