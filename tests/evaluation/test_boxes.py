"""Boxes of arrays: settings that hold them are compared by value, so that an attack is compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bap_jax.errors import SettingError
from bap_jax.evaluation import autoattack, cascade, compiled, named_threat
from bap_jax.evaluation import evaluate_batches as evaluate
from bap_jax.types import Batch, Bounds

_random = np.random.RandomState(0)
WEIGHTS = jnp.asarray(_random.randn(6, 3), jnp.float32)
LOWER, UPPER = np.array([0.0, -1.0, 0.0], np.float32), np.array([1.0, 1.0, 0.5], np.float32)
IMAGES = _random.uniform(LOWER, UPPER, (8, 2, 3)).astype(np.float32)


def network(weights, images):
    return (images - jnp.full((2, 3), 0.2)[None]).reshape(images.shape[0], -1) @ weights


LABELS = np.asarray(jnp.argmax(network(WEIGHTS, IMAGES), axis=1))


def box(kind):
    return Bounds(kind(LOWER), kind(UPPER))


def test_settings_with_arrays_are_equal_where_their_values_are():
    one, other = (named_threat("pgd", bounds=box(kind), step_size=kind(np.full(2, 0.125))) for kind in (np.array, jnp.array))
    assert one == other and hash(one.attack) == hash(other.attack)
    assert one != named_threat("pgd", bounds=box(np.array), step_size=np.full(2, 0.25))
    mine = [autoattack("linf", bounds=box(kind)) for kind in (np.array, jnp.array)]
    assert mine[0] == mine[1] and hash(mine[0].stages[0].attack) == hash(mine[1].stages[0].attack)
    assert named_threat("fgsm-truncated", bounds=box(np.array)) == named_threat("fgsm-truncated", bounds=box(jnp.array))


@pytest.mark.parametrize("threat", [
    lambda: named_threat("pgd", num_steps=1, bounds=box(np.array)),
    lambda: cascade("mine", [named_threat("pgd", bounds=box(kind), num_steps=2, name=str(kind)) for kind in (np.array, np.copy)]),
    lambda: autoattack("linf", attacks=("apgd-ce",), num_steps=1, bounds=box(jnp.array)),
], ids=["threat", "cascade", "autoattack"])  # fmt: skip
def test_one_compile_of_the_attack(threat):
    batches = [
        Batch(*(jnp.asarray(part) for part in (IMAGES[i : i + 4], LABELS[i : i + 4], np.arange(i, i + 4), np.ones(4))))
        for i in (0, 4)
    ]
    before = compiled.attack._cache_size()
    result = evaluate(network, WEIGHTS, batches, [threat()], {"linf": [0.01, 0.02]}, jax.random.key(0), controls=False)
    assert compiled.attack._cache_size() == before + 1
    assert not [check for check in result.checks if check.status == "failed"]


def test_too_few_classes_are_refused_with_what_to_run_instead():
    def refused(num_classes, *threats):
        labels = jnp.zeros(2, int)
        batch = Batch(jnp.full((2, 2, 3), 0.5), labels, jnp.arange(2), jnp.ones(2))
        with pytest.raises(SettingError) as error:
            evaluate(network, WEIGHTS[:, :num_classes], [batch], threats, [0.1], jax.random.key(0))
        return str(error.value)

    two, three = refused(2, autoattack()), refused(3, autoattack())
    assert "attacks for 2 classes; apgd-t needs 4" in two and "--attack cascade:apgd-ce+fab-t+square" in two
    assert "autoattack(attacks=('apgd-ce', 'apgd-dlr', 'fab-t', 'square'))" in three
    assert "3 classes" in refused(2, named_threat("apgd-dlr")) and "run apgd-ce instead" in refused(2, named_threat("apgd-dlr"))
    mine = cascade("mine", [named_threat("pgd", num_steps=1), named_threat("apgd-t")])
    assert "apgd-t-linf needs 4 classes; run pgd-1-linf instead" in refused(2, mine)
