"""Input that nobody foresaw: whatever comes in is taken as it is or refused by an error of ours that names it."""

import json
import math
import shutil
import string
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bap_jax.checkpoint import Checkpoints
from bap_jax.data import check, from_arrays
from bap_jax.errors import CheckpointError, DataError, SettingError, one_line
from bap_jax.export.files import read_stored, write_tensors
from bap_jax.mathematics.masks import fitted_masks
from bap_jax.runs.settings import Settings
from bap_jax.runs.stored import settings_in

RECORDED = Path(__file__).parent / "export" / "recorded"
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(string.printable, max_size=12)
    | st.sampled_from(["8/255", "1/0", "nan", "inf", "-1", "1e400", "mean", "quantile:2", "a.b:c", "0,0.1", "auto", ""])
)  # fmt: skip
NAMES = st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))


def fuzz(few: int, many: int):
    """How many examples: few in every run of the tests, many in the long ones."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.soak)])


def every(examples: int, **strategies):
    """Runs a function on so many examples, the same ones each time."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    limits = settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)
    return lambda function: limits(given(**strategies)(function))()


@fuzz(150, 4000)
def test_a_configuration_with_any_value_anywhere(examples, tmp_path):
    whole, path = Settings(budget="uniform", epsilon="0.3").as_dict(), tmp_path / "config.json"

    @every(examples, name=st.sampled_from(sorted(whole)), value=VALUES)
    def read(name, value):
        path.write_text(json.dumps(whole | {name: value}))
        try:
            found = settings_in(path).check()
        except SettingError as error:
            said, keys = str(error).replace("-", "_"), list(value) if name == "phases" and isinstance(value, dict) else []
            assert any(one_line(one).rpartition(".")[2].replace("-", "_") in said for one in [name, *keys]), error
            return
        numbers = [one for one in found.as_dict().values() if isinstance(one, float)]
        assert all(math.isfinite(one) for one in numbers), (name, value)
        assert Settings(**found.as_dict()) == found


@fuzz(60, 2000)
def test_pictures_and_labels_of_any_kind(examples):
    shapes = st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2))
    kinds = st.sampled_from([np.uint8, np.float32, np.float64, np.int32, bool, np.complex64])
    pictures = st.builds(lambda shape, kind: (shape, kind), shapes, kinds).flatmap(lambda one: arrays(one[1], one[0]))

    @every(examples, images=pictures, labels=arrays(st.sampled_from([np.int64, np.int32, np.float32, bool]), st.integers(0, 4)))
    def take(images, labels):
        try:
            splits = from_arrays(images, labels)
            for split in splits[:2]:
                check(split)
        except (SettingError, DataError) as error:
            assert any(word in str(error) for word in ("images", "labels", "image", "label", "examples", "num_classes")), error
            return
        images, labels = splits.train.read(np.arange(len(splits.train)))
        assert np.isfinite(images).all() and 0 <= labels.min() <= labels.max() < splits.train.num_classes


@fuzz(40, 1000)
def test_masks_of_any_tree(examples):
    params = {"a": jnp.ones((2, 3)), "b": {"bias": jnp.ones(3)}}
    leaves = arrays(st.sampled_from([bool, np.uint8, np.float32]), st.sampled_from([(), (2, 3), (3,), (3, 2), (0,)]))
    trees = st.dictionaries(st.sampled_from("abc"), leaves | st.dictionaries(st.sampled_from(["bias", "other"]), leaves))

    @every(examples, masks=trees)
    def fit(masks):
        try:
            found = fitted_masks(params, masks)
        except SettingError as error:
            assert error.name.startswith("masks/"), error
            return
        assert jax.tree.structure(found) == jax.tree.structure(params)
        assert all(leaf.dtype == bool for leaf in jax.tree.leaves(found))


def spoilt(content: bytes, kind: str, place: float, with_: bytes) -> bytes:
    """The bytes with some of them cut off, overwritten or put in."""
    at = int(place * len(content))
    if kind == "cut":
        return content[:at]
    return content[:at] + with_ + content[at + (len(with_) if kind == "over" else 0) :]


SPOILING = {
    "kind": st.sampled_from(["cut", "over", "in"]),
    "place": st.floats(0, 1, exclude_max=True),
    "with_": st.binary(min_size=1, max_size=8),
}


@fuzz(60, 3000)
def test_a_file_of_weights_with_bytes_that_are_not_its_own(examples, tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"fc.weight": np.ones((3, 2), np.float32)}, {"layout": "torch"})
    files = [tmp_path / "m.safetensors", RECORDED / "plain.pt", RECORDED / "plain_old.pt", RECORDED / "checkpoint.pt"]

    @every(examples, file=st.sampled_from(files), **SPOILING)
    def read(file, **how):
        path = tmp_path / f"spoilt{file.suffix}"
        path.write_bytes(spoilt(file.read_bytes(), **how))
        try:
            found = read_stored(path)
        except SettingError as error:
            assert error.name in ("FILE", "--key") and str(path) in str(error), error
            return
        assert all(isinstance(tensor, np.ndarray) for tensor in found.tensors.values())


@fuzz(6, 200)
def test_a_checkpoint_with_bytes_that_are_not_its_own(examples, tmp_path):
    state = {"w": jnp.arange(64.0).reshape(8, 8), "mask": jnp.arange(64).reshape(8, 8) % 2 == 0}
    with Checkpoints(tmp_path / "whole") as checkpoints:
        checkpoints.save(1, state, metric=0.5)
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file())

    @every(examples, file=st.sampled_from([file for file in files if file.parts[0] == "1"]), **SPOILING)
    def restore(file, **how):
        folder = tmp_path / "spoilt"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / file
        path.write_bytes(spoilt(path.read_bytes(), **how))
        try:
            with Checkpoints(folder, read_only=True) as found:
                back = found.restore(state, 1)
        except CheckpointError as error:
            assert "step 1" in str(error) and str(folder) in str(error), error
            return
        jax.tree.map(np.testing.assert_array_equal, back, state)  # what was put there was what was there
