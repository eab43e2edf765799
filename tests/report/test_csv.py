"""results.csv: the same rows come back, with their types, and half a file is never seen."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bap_jax import atomic
from bap_jax.errors import SettingError
from bap_jax.report.csv import read_csv, write_csv

ROW = {
    "data": "digits", "model": "mlp", "arm": "0.2", "process": 'fast, "60 %"', "sparsity": 0.9, "seed": 3, "attack": "pgd-20",
    "norm": "linf", "epsilon": 8 / 255, "accuracy": 1 / 3, "num_examples": 360,
}  # fmt: skip


def test_round_trip_with_types(tmp_path):
    rows = [
        ROW | {"nonzero": 12, "cutoff": 0.1, "exact": True, "remark": "ä\nb"},
        ROW | {"seed": 4, "nonzero": None, "cutoff": 2.0, "exact": False, "remark": "1e5x"},
    ]
    back = read_csv(write_csv(rows, tmp_path / "results.csv"))
    assert back == rows
    assert [[type(value) for value in row.values()] for row in back] == [[type(value) for value in row.values()] for row in rows]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "arm": st.text(st.characters(codec="utf-8", exclude_characters="\r\0")),
                "accuracy": st.none() | st.floats(0, 1),
                "epsilon": st.floats(0, allow_nan=False),
                "seed": st.integers(0, 2**40),
            }
        ),
        min_size=1,
    )
)
def test_round_trip_of_any_known_column(tmp_path_factory, changes):
    rows = [ROW | change for change in changes]
    assert read_csv(write_csv(rows, tmp_path_factory.mktemp("csv") / "r.csv")) == rows


def test_numpy_scalars_nan_and_uneven_rows(tmp_path):
    rows = [ROW | {"accuracy": np.float64(0.25), "seed": np.int64(1), "ratio": math.inf}]
    rows += [ROW | {"accuracy": math.nan, "extra": 7, "ratio": np.float32(2)}]
    back = read_csv(write_csv(rows, tmp_path / "r.csv"))
    assert (back[0]["accuracy"], back[0]["seed"], back[0]["extra"], back[0]["ratio"]) == (0.25, 1, None, None)
    assert (back[1]["accuracy"], back[1]["extra"]) == (None, 7)


def test_bad_files_are_refused_by_name(tmp_path):
    path = tmp_path / "r.csv"
    write_csv([ROW], path)
    good = path.read_text()
    path.write_text(good.replace("0.9", "ninety"))
    with pytest.raises(SettingError, match="sparsity"):
        read_csv(path)
    path.write_text(good.replace(",seed,", ",sead,"))
    with pytest.raises(SettingError, match="seed"):
        read_csv(path)
    path.write_text(good + "a,b\n")
    with pytest.raises(SettingError, match="record 3"):
        read_csv(path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = atomic.write_atomic(tmp_path / "a.txt", "old")

    def fail(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        atomic.write_atomic(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
