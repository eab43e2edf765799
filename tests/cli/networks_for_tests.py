"""Networks of a user's own, whose weights are exported and imported."""

from bap_jax.models import MLP

MEAN, STD = (0.5,), (0.25,)


def normalised(num_classes, **settings):
    """A small perceptron that normalises its input."""
    return MLP(num_classes=num_classes, hidden=(6,), **settings | {"mean": MEAN, "std": STD})


def not_normalised(num_classes, **settings):
    return MLP(num_classes=num_classes, hidden=(6,), **settings)
