"""Threats are their attacks with settings filled in, and equal when their settings are."""

import jax
import jax.numpy as jnp
import numpy as np

from bap_jax.attacks import deepfool, fgsm, pgd
from bap_jax.evaluation import named_threat
from bap_jax.types import Bounds

_random = np.random.RandomState(2)
WEIGHTS = jnp.asarray(_random.randn(6, 3), jnp.float32)
IMAGES = jnp.asarray(_random.rand(4, 6), jnp.float32)
LABELS = jnp.array([0, 1, 2, 0])
KEYS = jax.random.split(jax.random.key(0), 4)
BOX = Bounds(-1.0, 2.0)


def network(images):
    return jnp.tanh(images - 0.5) @ WEIGHTS


def test_they_run_what_their_settings_say():
    epsilon, kept = jnp.float32(0.2), {"keep": "adversarial"}
    pairs = [
        (
            named_threat("pgd", norm="l2", num_steps=4, relative_step_size=0.5, bounds=BOX),
            pgd(
                network, KEYS, IMAGES, LABELS, epsilon=0.2, step_size=0.1, num_steps=4, norm="l2", bounds=BOX, keep="adversarial"
            ),
        ),
        (
            named_threat("pgd", num_steps=2, step_size=0.03, random_start=False),
            pgd(network, None, IMAGES, LABELS, epsilon=0.2, step_size=0.03, num_steps=2, random_start=False, **kept),
        ),
        (named_threat("fgsm", norm="l1", bounds=BOX), fgsm(network, None, IMAGES, LABELS, epsilon=0.2, norm="l1", bounds=BOX)),
        (
            named_threat("deepfool", norm="l2", num_steps=3),
            deepfool(network, None, IMAGES, LABELS, num_steps=3, reference="label"),
        ),
    ]
    for threat, expected in pairs:
        np.testing.assert_allclose(threat.attack(network, KEYS, IMAGES, LABELS, epsilon).images, expected.images, atol=1e-6)


def test_equal_settings_are_equal_attacks_and_others_are_not():
    assert named_threat("pgd") == named_threat("pgd") and hash(named_threat("pgd").attack) == hash(named_threat("pgd").attack)
    assert named_threat("pgd") != named_threat("pgd", restarts=2) and named_threat("fgsm") != named_threat("fgsm", bounds=BOX)
    assert named_threat("deepfool", norm="l2").minimal and not named_threat("pgd").minimal
    assert named_threat("pgd", restarts=3, norm="l1").name == "pgd-x3-l1" and named_threat("pgd", name="mine").name == "mine"
