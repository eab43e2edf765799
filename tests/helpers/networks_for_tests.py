"""Networks of a user's own, whose weights are exported and imported."""

import flax.linen as nn

from bap_jax.models import MLP

MEAN, STD = (0.5,), (0.25,)


def normalised(num_classes, **settings):
    """A small perceptron that normalises its input."""
    return MLP(num_classes=num_classes, hidden=(6,), **settings | {"mean": MEAN, "std": STD})


def not_normalised(num_classes, **settings):
    return MLP(num_classes=num_classes, hidden=(6,), **settings)


class _OtherEpsilon(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.BatchNorm(use_running_average=not train, epsilon=1e-3, name="bn")(images)
        return nn.Dense(self.num_classes, name="head")(x.reshape(len(x), -1))


def with_epsilon(num_classes, **settings):
    """A network whose BatchNorm has TensorFlow's settings, not PyTorch's."""
    return _OtherEpsilon(num_classes)
