"""A line of images with known margins, and an attack that always finds the way: an oracle for budgets that adapt."""

import jax
import jax.numpy as jnp
import pytest

from bap_jax.types import AttackResult, Batch


class Line:
    """Four images on a line, class 0 above 0.5, in a data set of six."""

    margins = (0.02, 0.05, 0.2, -0.1)  # the last is misclassified
    index = (5, 2, 0, 3)

    @staticmethod
    def logits_fn(images):
        return jnp.concatenate([images - 0.5, 0.5 - images], axis=-1)

    @staticmethod
    def attack(logits_fn, keys, images, labels, *, epsilon):
        """The worst point of the ball."""
        moved = images - jnp.broadcast_to(epsilon, labels.shape)[:, None]
        return AttackResult(moved, labels > 0, jnp.zeros((1, len(labels))))

    def batch(self):
        images = (0.5 + jnp.array(self.margins))[:, None]
        return Batch(images, jnp.zeros(4, jnp.int32), jnp.array(self.index), jnp.ones(4))

    def table(self, values):
        """A table with these values for the batch."""
        return jnp.zeros(6).at[jnp.array(self.index)].set(jnp.array(values))

    def of(self, table):
        """What a table holds for the batch."""
        return table[jnp.array(self.index)]

    def perturb(self, budget, state, step=0, given=None):
        given = self.batch() if given is None else given
        keys = jax.random.split(jax.random.key(3), len(given.labels))
        return budget.perturb(keys, self.logits_fn, given, state, step=jnp.int32(step), gather=lambda x: x)


@pytest.fixture(scope="session")
def line():
    """See :class:`Line`."""
    return Line()
