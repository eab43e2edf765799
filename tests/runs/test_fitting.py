"""Training objects: what is taken for a model, data and a recipe, what comes back, and what is refused before any work."""

import functools

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from plugins_for_tests import blobs, small

import bap_jax as bap
from bap_jax.errors import DataError, SettingError
from bap_jax.runs import Settings, TrainingOptions, fit, train

OPTIONS = TrainingOptions(batch_size=8, log_every=1, validations=2, validation_epsilons=(0.0,))
MODEL = small(3)
RECIPE = bap.Recipe(optax.sgd(0.1), bap.pruners.dense(), bap.budgets.none(), bap.losses.clean())


def test_objects_and_names_train_the_same_network(tmp_path):
    """Of the same slots, from the same seed."""
    settings = Settings(
        data="plugins_for_tests:blobs",
        model="plugins_for_tests:small",
        budget="uniform",
        epsilon="0.1",
        attack_steps=1,
        batch_size=8,
        steps=6,
        frequency=1,
        log_every=1,
        label_smoothing=0.0,
        learning_rate=0.01,
        validation_steps=1,
        validation_limit=24,
        validations=2,
        seed=3,
    )
    train(settings, tmp_path / "named")

    def recipe(info):
        assert (info.num_examples, info.num_steps, info.steps_per_epoch) == (24, 6, 3)
        pruner = bap.pruners.magnitude(bap.Ramp(0.0, 0.9, 0, round(0.6 * info.num_steps), 1))
        budget = bap.budgets.uniform(functools.partial(bap.pgd, norm="linf", num_steps=1), 0.1)
        return bap.Recipe(optax.adam(0.01), pruner, budget, bap.losses.mix(label_smoothing=0.0))

    options = TrainingOptions(batch_size=8, log_every=1, validations=2, validation_steps=1, validation_limit=24, seed=3)
    seen = []
    found = fit(MODEL, recipe, blobs(), steps=6, options=options, callback=lambda *told: seen.append(told[:2]))
    named = bap.load(tmp_path / "named")
    for mine, theirs in zip(jax.tree.leaves(found.network.params), jax.tree.leaves(named.params), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    lines = bap.checkpoint.read_metrics(tmp_path / "named")
    assert [line.keys() for line in found.metrics] == [line.keys() for line in lines]
    assert seen == [(step, 6) for step in range(1, 7)] and found.steps == 6
    assert found.metrics[-1]["validation_mean"] == found.validation.mean


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images):
        return self.out(images)


@pytest.mark.parametrize("model", [nn.Dense(3), NNX, lambda rngs: NNX(rngs)], ids=["linen", "nnx class", "nnx function"])
def test_modules_and_arrays(model):
    generator = np.random.default_rng(0)
    images = generator.uniform(size=(40, 4))  # float64, as numpy makes them
    found = fit(model, RECIPE, (images, images[:, :3].argmax(1)), epochs=0.5, options=OPTIONS)
    assert found.steps == 2 and found.network(images).shape == (40, 3)
    assert found.network.evaluate(attacks="fgsm", epsilon=0.1, controls=False).num_examples == 4  # what was set apart


def test_it_begins_with_a_network(tmp_path):
    recipe = RECIPE._replace(optimizer=optax.sgd(0.0))
    params, model_state = MODEL.init(jax.random.key(9), np.zeros((1, 4, 4, 1), np.float32))
    start = bap.Network(params, bap.magnitude_masks(params, 0.5), model_state)
    for out in (None, tmp_path / "run"):
        found = fit(MODEL, recipe, blobs(), steps=2, options=OPTIONS, start=start, out=out)
        np.testing.assert_array_equal(found.network.params["out"], np.where(start.masks["out"], params["out"], 0))
        np.testing.assert_array_equal(found.network.masks["out"], start.masks["out"])
    fit(MODEL, recipe, blobs(), steps=2, options=OPTIONS, start=start, out=tmp_path / "run", resume=True)
    with pytest.raises(SettingError, match=r"objects\.start"):
        fit(MODEL, recipe, blobs(), steps=2, options=OPTIONS, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": 3}, "model"),
        ({"model": NNX(nnx.Rngs(0))}, "model"),
        ({"recipe": [RECIPE, RECIPE]}, "recipe"),
        ({"steps": None}, "length of the phase train"),
        ({"epochs": 1.0}, "length of the phase train"),
        ({"recipe": [bap.Phase("one", RECIPE, bap.Length(1))]}, "steps"),
        ({"options": TrainingOptions(batch_size=64)}, "batch_size"),
        ({"options": TrainingOptions(batch_size=8, validation_epsilons=(8.0,))}, "validation_epsilons"),
        ({"options": TrainingOptions(batch_size=8, ema=1.0)}, "ema"),
        ({"options": TrainingOptions(batch_size=8, microbatches=3)}, "microbatches"),
        ({"options": TrainingOptions(batch_size=8, attack_chunks=0)}, "attack_chunks"),
        ({"resume": True}, "resume"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, told):
    given = {"model": MODEL, "recipe": RECIPE, "splits": blobs(), "steps": 2, "options": OPTIONS} | changes
    with pytest.raises(SettingError, match=f"^{told} = "):
        fit(given.pop("model"), given.pop("recipe"), given.pop("splits"), **given)


def test_arrays_that_are_no_data_are_refused():
    with pytest.raises(DataError, match="40 images and 39 labels"):
        fit(nn.Dense(3), RECIPE, (np.zeros((40, 4)), np.zeros(39, int)), steps=1, options=OPTIONS)
    with pytest.raises(DataError, match="leaves its bounds"):
        fit(nn.Dense(3), RECIPE, (np.full((40, 4), 2.0), np.arange(40) % 3), steps=1, options=OPTIONS)
    with pytest.raises(SettingError, match=r"labels = 4294967296: expected class numbers"):
        fit(nn.Dense(3), RECIPE, (np.zeros((40, 4)), np.arange(40) % 3 + 2**32), steps=1, options=OPTIONS)
