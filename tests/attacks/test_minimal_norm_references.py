"""Our minimal-norm attacks against distances recorded from adv-lib 0.2.8 and foolbox 3.3.4 (torch 2.13.0 on a CPU, Python 3.11).

Recorded with the network below written in torch, x and y as below, t = (y + 1) % 10, and

adv-lib: ddn(net, x, y, steps=100, levels=None), fmn(net, x, y, norm=p, steps=100), sigma_zero(net, x, y, num_steps=200),
  carlini_wagner_l2(net, x, y, max_iterations=200, binary_search_steps=9, abort_early=False[, confidence=1.0]);
  "targeted" the same with t and targeted=True
foolbox: DDNAttack(steps=100), L0FMNAttack(steps=100), L1FMNAttack(steps=100), LInfFMNAttack(steps=100),
  L2CarliniWagnerAttack(steps=200, binary_search_steps=9, abort_early=False), each (fm, x, y, epsilons=None) with
  fm = foolbox.PyTorchModel(net, bounds=(0, 1))

Where a returned point was not adversarial (FMN-L1 and -L2 of adv-lib, for up to 14 of 24) the distance is -1. foolbox's FMN-L2
does not project and is left out (its median is 0.95).
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.attacks.carlini_wagner import carlini_wagner
from bap_jax.attacks.ddn import ddn
from bap_jax.attacks.fmn import fmn
from bap_jax.attacks.sigma_zero import sigma_zero
from bap_jax.mathematics import misclassified, per_example_norm

RECORDED = json.loads((pathlib.Path(__file__).parent / "minimal_norm.json").read_text())
_random = np.random.RandomState(0)
W1, B1, W2 = _random.randn(64, 32) * 0.2, _random.randn(32) * 0.1, _random.randn(32, 10)
W1, B1, W2 = (jnp.asarray(array, jnp.float32) for array in (W1, B1, W2))
IMAGES = jnp.asarray(_random.rand(400, 8, 8, 1)[np.asarray(RECORDED["picked"])], jnp.float32)  # those with the largest margins


def network(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ W1 + B1[None]) @ W2


LABELS = jnp.argmax(network(IMAGES), axis=1)
CASES = {
    "ddn": (ddn, "l2", {}, 1e-3),
    **{f"fmn {norm}": (functools.partial(fmn, norm=norm), norm, {}, 1e-2) for norm in ("l0", "l1", "l2", "linf")},
    "sigma_zero": (sigma_zero, "l0", {"num_steps": 200}, 1e-3),
    "carlini_wagner": (carlini_wagner, "l2", {"num_steps": 200}, 1e-3),
    "carlini_wagner confidence": (carlini_wagner, "l2", {"num_steps": 200, "confidence": 1.0}, 1e-3),
}


def test_the_labels_are_the_networks_predictions():
    np.testing.assert_array_equal(LABELS, RECORDED["labels"])


@pytest.mark.parametrize("name", [name for name in RECORDED if "-lib" in name])
def test_what_adv_lib_finds_we_find_at_the_same_distance_and_more(name):
    """Where both find something the distances agree example by example; on the whole ours are no larger."""
    targeted = name.endswith("targeted")
    attack, norm, settings, tolerance = CASES[name.removeprefix("adv-lib ").removesuffix(" targeted")]
    labels = (LABELS + 1) % 10 if targeted else LABELS
    result = jax.jit(lambda: attack(network, None, IMAGES, labels, targeted=targeted, **settings))()
    assert jnp.all(result.found)
    np.testing.assert_array_equal(misclassified(network(result.images), labels), not targeted)
    theirs = np.asarray(RECORDED[name])
    ours = np.asarray(per_example_norm(result.images - IMAGES, norm))
    both = theirs >= 0
    np.testing.assert_allclose(ours[both], theirs[both], rtol=tolerance)
    assert both.sum() >= 10
    ceiling = np.where(both, theirs, np.inf)
    assert np.median(ours) <= 1.001 * np.median(ceiling)
    if f"foolbox {name.removeprefix('adv-lib ')}" in RECORDED:
        other = np.asarray(RECORDED[name.replace("adv-lib", "foolbox")])
        assert np.median(ours) <= 1.001 * np.median(np.where(other >= 0, other, np.inf))
