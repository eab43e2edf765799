"""Our attacks against points recorded from foolbox 3.3.4 (jax 0.10.2, Python 3.11).

Recorded with fmodel = foolbox.JAXModel(network, bounds=(0, 1)) and
  LinfProjectedGradientDescentAttack(abs_stepsize=.02, steps=7, random_start=False)(fmodel, x, y, epsilons=.08)   -> "linf"
  L2ProjectedGradientDescentAttack(abs_stepsize=.06, steps=7, random_start=False)(fmodel, x, y, epsilons=.2)      -> "l2"
  LinfFastGradientAttack()(fmodel, x, y, epsilons=.1)                                                             -> "fgsm"
  L2DeepFoolAttack(steps=50)(fmodel, x, y, epsilons=None), LinfDeepFoolAttack(steps=50)(…)                         -> "deepfool_*"
"""

import json
import pathlib

import jax.numpy as jnp
import numpy as np

from bap_jax.attacks import deepfool, fgsm, pgd

RECORDED = json.loads((pathlib.Path(__file__).parent / "foolbox.json").read_text())
_random = np.random.RandomState(0)
W1, B1, W2 = _random.randn(6, 8), _random.randn(8) * 0.1, _random.randn(8, 4)
W1, B1, W2 = (jnp.asarray(array, jnp.float32) for array in (W1, B1, W2))
IMAGES = jnp.asarray(_random.rand(5, 6), jnp.float32)
LABELS = jnp.asarray(RECORDED["labels"])


def network(images):
    return jnp.tanh((images - 0.5) @ W1 + B1[None]) @ W2


def same(images, name):
    np.testing.assert_allclose(images, RECORDED[name], atol=5e-6)
    assert np.abs(np.asarray(images) - IMAGES).max() > 0.01


def test_the_labels_are_the_networks_predictions():
    np.testing.assert_array_equal(jnp.argmax(network(IMAGES), axis=1), LABELS)
    assert len(set(RECORDED["labels"])) > 1


def test_pgd():
    settings = {"num_steps": 7, "random_start": False}
    same(pgd(network, None, IMAGES, LABELS, epsilon=0.08, step_size=0.02, **settings).images, "linf")
    same(pgd(network, None, IMAGES, LABELS, epsilon=0.2, step_size=0.06, norm="l2", **settings).images, "l2")


def test_fgsm():
    same(fgsm(network, None, IMAGES, LABELS, epsilon=0.1).images, "fgsm")


def test_deepfool():
    same(deepfool(network, None, IMAGES, LABELS).images, "deepfool_l2")
    same(deepfool(network, None, IMAGES, LABELS, norm="linf").images, "deepfool_linf")
