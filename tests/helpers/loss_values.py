"""A loss at given logits: the images are the logits, the network is the identity."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from told import told

from bap_jax.types import Adversarial, Batch, Network, Outputs

B, K = 6, 5
RANDOM = np.random.RandomState(0)
CLEAN, ATTACKED = (jnp.asarray(2 * RANDOM.randn(B, K), jnp.float32) for _ in range(2))
LABELS = jnp.array([0, 1, 2, 3, 4, 0])
ONES = jnp.ones(B)


TEACHER = {"w": jnp.asarray(RANDOM.randn(K, K), jnp.float32)}
INFO = told(B)._replace(networks={"start": Network(TEACHER, True, {})})


def teach(params, model_state, images, *, train, key=None):
    """A teacher of images [B, D], D at most K."""
    return Outputs(images @ params["w"][: images.shape[-1]], {}), model_state


def share(values, weight):
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-12)


def value(loss, clean=CLEAN, attacked=ATTACKED, weight=ONES, attacked_weight=None, targets=None, state=None):
    """The loss and its metrics at given logits."""
    targets = jax.nn.one_hot(jnp.resize(LABELS, len(clean)), K) if targets is None else targets
    state = loss.init(None, None, INFO) if state is None else state
    return compiled(loss, clean, attacked, weight, weight if attacked_weight is None else attacked_weight, targets, state)


@partial(jax.jit, static_argnums=0)
def compiled(loss, clean, attacked, weight, attacked_weight, targets, state):
    size = len(clean)
    batch = Batch(clean, jnp.resize(LABELS, size), jnp.arange(size), weight)
    adversarial = Adversarial(attacked, jnp.zeros(size), targets, attacked_weight)
    forward = lambda *images: tuple(Outputs(image, {"features": image}) for image in images)  # noqa: E731
    return loss.value(forward, batch, adversarial, state, step=jnp.int32(0), mean=share, gather=lambda x: x)
