"""Data sets by name: digits and the user's own factories; TFDS names are in test_prepared.py."""

import numpy as np
import pytest

from bap_jax.data import load, load_split
from bap_jax.errors import DataError, SettingError

MODULE = """
import numpy as np
from bap_jax.data import Dataset, Splits

calls = 0
not_callable = 3

def rings(images=None, labels=None):
    global calls
    calls += 1
    images = np.zeros((4, 2, 2, 1), np.float32) if images is None else images
    labels = np.array([0, 1, 0, 1], np.int32) if labels is None else labels
    return Splits(*(Dataset(images, labels, 2, name="rings", split=split) for split in ("train", "validation", "test")))

def with_nan():
    return rings(images=np.full((4, 2, 2, 1), np.nan, np.float32))

def with_labels_out_of_range():
    return rings(labels=np.array([0, 1, 2, 0]))

def nothing():
    return None
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "ring_data_for_test_load.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "ring_data_for_test_load"


def test_a_factory_is_called_once_and_checked(module):
    import importlib

    before = importlib.import_module(module).calls
    splits = load(f"{module}:rings")
    assert [len(split) for split in splits] == [4, 4, 4]
    assert importlib.import_module(module).calls == before + 1
    assert len(load_split(f"{module}:rings", "validation", limit=2)) == 2


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("with_nan", "image 0 holds NaN"),
        ("with_labels_out_of_range", r"label 2 of example 2 lies outside \[0, 1\]"),
        ("nothing", "returned a NoneType, expected bap_jax.data.Splits"),
    ],
)
def test_a_factory_that_is_unfit(module, attribute, message):
    with pytest.raises(DataError, match=message):
        load(f"{module}:{attribute}")


@pytest.mark.parametrize(("attribute", "message"), [("not_callable", "a function; .* is a int"), ("absent", "has no 'absent'")])
def test_a_factory_that_cannot_be_called(module, attribute, message):
    with pytest.raises(SettingError, match=message):
        load(f"{module}:{attribute}")


def test_a_module_that_is_absent():
    with pytest.raises(SettingError, match=r"installed or on PYTHONPATH .*No module named 'no_such_module'"):
        load("no_such_module.data:rings")


def test_digits_with_a_limit():
    splits = load("digits", limit=7)
    assert [len(split) for split in splits] == [7, 7, 7]
    np.testing.assert_array_equal(splits.test.read(range(7))[1], load("digits").test.read(range(7))[1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("limit", {"limit": 0}),
        ("validation_fraction", {"validation_fraction": 1.5}),
        ("image_size", {"image_size": 4}),
        ("test_split", {"test_split": "train[:10%]"}),
        ("train_split", {"train_split": "train[:10%]"}),
    ],
)
def test_settings_that_digits_cannot_have(name, settings):
    with pytest.raises(SettingError, match=f"^{name} = "):
        load("digits", **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("validation_fraction", {"validation_fraction": 0.1}),
        ("image_size", {"image_size": 4}),
        ("train_split", {"train_split": "x"}),
    ],
)
def test_settings_that_a_factory_cannot_have(module, name, settings):
    with pytest.raises(SettingError, match=f"^{name} = "):
        load(f"{module}:rings", **settings)


def test_an_empty_name():
    with pytest.raises(SettingError, match=r"^data = ' ': expected digits"):
        load(" ")
