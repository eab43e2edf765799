"""The attacks lower for accelerators that this machine need not have."""

import jax
import jax.numpy as jnp
import pytest

from bap_jax.attacks import bap_deepfool, fgsm, pgd

IMAGES, LABELS = jnp.zeros((4, 6, 6, 1)), jnp.zeros(4, int)


def network(images):
    kernel = jnp.ones((3, 3, 1, 5))
    features = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.max(jnp.tanh(features), axis=(1, 2))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("attack", [
    lambda keys, images: pgd(network, keys, images, LABELS, epsilon=0.1, num_steps=3, restarts=2),
    lambda keys, images: pgd(network, keys, images, LABELS, epsilon=0.1, num_steps=3, norm="l2"),
    lambda keys, images: pgd(network, keys, images, LABELS, epsilon=0.1, num_steps=3, norm="l1"),
    lambda keys, images: fgsm(network, None, images, LABELS, epsilon=0.1),
    lambda keys, images: bap_deepfool(network, None, images, LABELS),
])  # fmt: skip
def test_attacks_lower(attack, platform):
    keys = jax.random.split(jax.random.key(0), 4)
    lowered = jax.jit(attack).trace(keys, IMAGES).lower(lowering_platforms=(platform,))
    assert "stablehlo.convolution" in lowered.as_text()
