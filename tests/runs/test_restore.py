"""A run's network as a function: rebuilt from the run's configuration, called, attacked."""

import numpy as np
import optax
import pytest
from plugins_for_tests import blobs, small

import bap_jax as bap
from bap_jax.checkpoint import restore_network
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.runs import Settings, TrainingOptions, fit, train
from bap_jax.runs.restore import settings_of

SETTINGS = Settings(
    data="plugins_for_tests:blobs",
    model="plugins_for_tests:small",
    budget="none",
    batch_size=8,
    steps=4,
    ramp_end=0.5,
    ema=0.5,
    validation_epsilon="0",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(SETTINGS, folder)
    return folder


def test_a_run_is_a_function_again(run):
    net, stored = bap.load(run), restore_network(run)
    images = blobs().test.images
    expected = np.maximum(images.reshape(len(images), -1) @ stored.params["hidden"], 0) @ stored.params["out"]
    np.testing.assert_allclose(net(images), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(net(np.zeros((2, 4, 4, 1), np.uint8) + 255), net(np.ones((2, 4, 4, 1))))
    assert net.params["hidden"] is net.network.params["hidden"] and net.model_state == {}
    assert float(bap.measured_sparsity(net.masks)) == pytest.approx(0.9, abs=0.02)
    assert (net.about["step"], net.about["finished"], net.about["phase_name"], net.about["data"]) == (
        4,
        True,
        "train",
        SETTINGS.data,
    )
    with pytest.raises(SettingError, match=r"images = .*a batch \[B, 4, 4, 1\]"):
        net(images[0])


def test_which_network_of_the_run(run):
    last, average = bap.load(run), bap.load(run, "ema")
    assert not np.array_equal(last.params["out"], average.params["out"])
    np.testing.assert_array_equal(bap.load(run, 4).params["out"], last.params["out"])
    with pytest.raises(SettingError, match="--checkpoint = '99'"):
        bap.load(run, 99)
    with pytest.raises(SettingError, match="model = 'Model'"):
        bap.load(run, model=small(3))
    with pytest.raises(SettingError, match="run folder"):
        bap.load(run / "nothing")


def test_it_is_attacked_on_the_data_of_its_run_or_on_other(run):
    net = bap.load(run)
    given = {"attacks": "fgsm", "epsilon": [0, 0.1], "controls": False}
    result = net.evaluate(**given, limit=20)
    assert result.num_examples == 20 and result.robust_accuracy["fgsm-linf"][0] == result.clean_accuracy
    assert net.evaluate(blobs().train, **given).num_examples == 24
    with pytest.raises(SettingError, match="attacks = 'guess'"):
        net.evaluate(attacks="guess", epsilon=0.1)
    with pytest.raises(SettingError, match="epsilons = 8"):
        net.evaluate(epsilon=8)
    with pytest.warns(FutureWarning, match="how it is written now"):
        before = net.evaluate(attack="fgsm", epsilon="0,0.1", controls=False, limit=20)
    np.testing.assert_array_equal(before.success["fgsm-linf"], result.success["fgsm-linf"])


def test_a_run_of_objects_is_read_with_its_model(tmp_path):
    recipe = bap.Recipe(optax.sgd(0.1), bap.pruners.dense(), bap.budgets.none(), bap.losses.clean())
    options = TrainingOptions(batch_size=8, validation_epsilons=(0.0,))
    found = fit(small(3), recipe, blobs(), steps=2, options=options, out=tmp_path)
    net = bap.load(tmp_path, model=small(3))
    np.testing.assert_array_equal(net(blobs().test.images), found.network(blobs().test.images))
    assert net.evaluate(blobs().test, attacks="fgsm", epsilon=0.1, controls=False).num_examples == 24
    for refused, told in ((lambda: bap.load(tmp_path), "model = None"), (lambda: settings_of(tmp_path), "bap.load")):
        with pytest.raises(SettingError, match=told):
            refused()
    with pytest.raises(SettingError, match="images = None"):
        net.evaluate(attacks="fgsm", epsilon=0.1)
    with pytest.raises(CheckpointError, match="params/out"):
        bap.load(tmp_path, model=small(4))
