"""A network's options are part of a run: typed, checked, in its configuration and name; the network is built with them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bap_jax.cli.main import read
from bap_jax.cli.slots import settings_told
from bap_jax.errors import CheckpointError, SettingError
from bap_jax.export import read_tensors, write_tensors
from bap_jax.models import NETWORKS
from bap_jax.plugins import import_object
from bap_jax.runs.loop import train
from bap_jax.runs.naming import network_name
from bap_jax.runs.network_options import keywords_of
from bap_jax.runs.recipe import model_of
from bap_jax.runs.restore import load
from bap_jax.runs.settings import Settings
from bap_jax.runs.slots import SLOTS
from bap_jax.runs.stored import settings_in
from bap_jax.runs.weights import export_run, import_run
from bap_jax.sweeps.grid import cell_name

OWN = "plugins_for_tests:scaled"
NORMALISES = {"mean": 0.3, "std": 0.5}
NOT_OPTIONS = {"num_classes", "conv", "axis_name", "parent", "name"}


def told(*arguments: str) -> Settings:
    return Settings(**settings_told(read(["train", "--out", "x", *arguments])))


def test_every_network_has_a_row_with_its_own_options_and_defaults():
    assert {name: import_object("model", row.factory) for name, row in SLOTS["model"].items()} == NETWORKS
    for name, row in SLOTS["model"].items():
        fields = {field.name: field.default for field in dataclasses.fields(NETWORKS[name]) if field.name not in NOT_OPTIONS}
        assert row.options().values() == fields, name
        assert keywords_of(Settings(model=name).check_model().model_options) == {}


def test_options_are_read_typed_and_reach_the_network():
    small = ("--model", "wideresnet", "--model.depth", "10", "--model.width=1")
    settings = told(*small, "--model.mean", "0.5,1/4", "--model.no-affine")
    assert settings.model_options.mean == (0.5, 0.25) and settings == Settings(**json.loads(json.dumps(settings.as_dict())))
    options = {"depth": 10, "width": 1, "mean": [0.5, 0.25], "affine": False}
    assert settings == Settings(model="wideresnet", **{f"model.{name}": value for name, value in options.items()})
    model = model_of(settings, 3)
    assert model is model_of(settings.changed(seed=1), 3) is not model_of(settings.changed(**{"model.width": 2}), 3)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 2), np.float32))
    assert params["block1"]["conv1"]["kernel"].shape == (3, 3, 16, 16) and "bn" not in params
    assert told("--model.widths", "fc1=9").model_options.widths == (("fc1", 9),)
    thin = Settings(model="resnet8", **{"model.widths": "4,8,16", "model.dtype": "bfloat16"})
    params, _ = jax.eval_shape(model_of(thin, 3).init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    assert params["head"]["kernel"].shape == (16, 3) and params["head"]["kernel"].dtype == np.float32


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("wideresnet", {"depth": 11}, "--model.depth = 11: expected 6n + 4"),
        ("wideresnet", {"dropout_rate": 1.0}, "--model.dropout-rate = 1.0: expected a number in"),
        ("resnet8", {"widths": "4,8"}, "--model.widths = (4, 8): expected 3 numbers, one for each stage"),
        ("mlp", {"std": "0"}, "--model.std = (0.0,): expected a finite number for each channel, above 0"),
        ("mlp", {"hidden": "3,x"}, "model.hidden = '3,x': expected whole numbers such as 16,32,64"),
        ("mlp", {"widths": "fc1"}, "model.widths = 'fc1': expected widths of layers such as conv1=12,fc1=30"),
        ("mlp", {"depth": 10}, "model.depth = 10: expected nothing with --model mlp; it is an option of wideresnet"),
        ("mlp", {"dtype": "int8"}, "model.dtype = 'int8': expected float32, bfloat16, float16 or null"),
        (OWN, {"beta": 1}, "--model.beta = 1: expected an option of plugins_for_tests:scaled: mean, alpha, widths"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_name(model, options, message, plugins):
    with pytest.raises(SettingError) as refused:
        Settings(model=model, **{f"model.{name}": value for name, value in options.items()}).check()
    assert message in str(refused.value)


def test_what_the_images_do_not_fit_has_the_name_of_its_option():
    model = model_of(Settings(**{"model.mean": (0.5, 0.5)}), 3)
    with pytest.raises(SettingError, match=r"--model\.mean = .* expected one number for each of 1 channels"):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))


def test_a_factory_of_ones_own_is_called_with_its_options(plugins):
    settings = told("--model", OWN, "--model.alpha", "3", "--model.widths", "5,6", "--model.mean", "1/2")
    assert settings == Settings(model=OWN, **{"model.alpha": 3, "model.widths": (5, 6), "model.mean": (0.5,)}).check()
    assert plugins.scaled(3, alpha=3, mean=(0.5,), widths=(5, 6)) == {"alpha": 3, "mean": (0.5,), "widths": (5, 6)}
    assert network_name(settings) == f"{OWN} alpha 3 mean 0.5 widths 5,6"


def test_options_stand_in_the_names_of_networks_and_cells():
    assert network_name(Settings()) == "mlp" and cell_name(Settings()).startswith("digits-mlp/")
    thin = Settings(model="wideresnet", **{"model.depth": 10, "model.std": (0.5,)})
    assert cell_name(thin).startswith("digits-wideresnet-std-0.5-depth-10/")
    widths = [tuple((f"block{number}/conv1", width) for number in range(9)) for width in (8, 9)]
    names = [network_name(Settings(**{"model.widths": each})) for each in widths]
    assert len(set(names)) == 2 and max(map(len, names)) < 40


def test_a_run_is_gone_on_with_loaded_exported_and_imported_with_its_options(tmp_path):
    options = {"model.hidden": "8", "model.mean": "0.3", "model.std": "0.5"}
    settings = Settings(steps=2, limit=64, batch_size=32, validation_limit=8, **options)
    train(settings, tmp_path / "x")
    assert settings_in(tmp_path / "x" / "config.json") == settings
    assert train(settings, tmp_path / "x", resume=True).resumed_from == 2
    with pytest.raises(SettingError, match=r"model\.hidden"):
        train(settings.changed(**{"model.hidden": "9"}), tmp_path / "x", resume=True)
    net, images = load(tmp_path / "x"), np.full((2, 8, 8, 1), 0.3, np.float32)
    assert net.params["fc1"]["kernel"].shape == (64, 8)
    files, card = export_run(tmp_path / "x")
    assert card["normalisation"]["mean"] == [0.3] and card["settings"]["model.hidden"] == [8]

    def imported(file, out, **more):
        options = {f"model.{name}": value for name, value in {"hidden": "8", **more}.items()}
        notes = import_run(file, model="mlp", data="digits", out=tmp_path / out, options=options).notes
        return notes[0] if notes else ""

    taken = "the file normalises its images, and so does the network here: --model.mean 0.3 and --model.std 0.5"
    assert imported(files.weights, "card").startswith(taken)
    np.testing.assert_array_equal(load(tmp_path / "card")(images), net(images))
    with pytest.raises(SettingError, match=r"--model\.std = .* expected \[0\.5\]"):
        imported(files.weights, "z", mean="0.3", std="0.25")
    theirs = tmp_path / "theirs.safetensors"  # with a module that normalises, and no card
    tensors = read_tensors(files.weights)[0]
    write_tensors(
        theirs, tensors | {f"0.{name}": np.full((1, 1, 1), value, np.float32) for name, value in NORMALISES.items()}, {}
    )
    assert imported(theirs, "buffers").startswith(taken)
    assert settings_in(tmp_path / "buffers" / "config.json").model_options == settings.model_options
    with pytest.raises(CheckpointError, match="mean"):
        imported(theirs, "z", mean="0.1", std="0.5")
