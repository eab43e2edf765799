"""A network of which nothing is kept, on images that it gets all wrong: numbers, files and a report that draws."""

import json
import math
import re

import numpy as np
import pytest

from bap_jax.data import digits
from bap_jax.report.tables import sizes_table
from bap_jax.runs.loop import train
from bap_jax.runs.settings import Settings


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A run whose every weight is pruned: it says the same of every image."""
    folder = tmp_path_factory.mktemp("empty") / "run"
    settings = Settings(budget="none", final_sparsity=1.0, ramp_end=0.5, steps=4, batch_size=32, log_every=1)
    train(settings, folder)
    return folder


def test_all_wrong_and_nothing_kept(empty, bap, tmp_path):
    code, output, error = bap("evaluate", empty, "--attack", "pgd,fmn,autoattack", "--epsilon", "0,0.1", "--limit", 1)
    assert code == 0, error
    (path,) = (empty / "evaluations").glob("*.json")
    record = strictly(path.read_text())
    stored = np.load(path.with_suffix(".npz"))
    assert stored["label"] == digits().test.labels[:1] and stored["prediction"] != stored["label"]
    assert {row["accuracy"] for row in record["rows"]} == {0.0} and {row["num_examples"] for row in record["rows"]} == {1}
    assert record["rows"][0]["compression_ratio"] is None and record["rows"][0]["sparsity_measured"] == 1.0
    for text in [*(p.read_text() for p in empty.glob("*.json")), *(empty / "metrics.jsonl").read_text().splitlines()]:
        strictly(text)
    assert "0.00 %" in output

    code, output, error = bap("report", empty, "--out", tmp_path / "report", "--samples", 1)
    assert code == 0, error
    texts = {path.suffix: path.read_text() for path in (tmp_path / "report").iterdir() if path.suffix in (".html", ".md", ".csv")}
    assert texts.keys() == {".html", ".md", ".csv"}
    for text in texts.values():
        read = re.sub(r'base64,[^"]*|<script.*?</script>|<style.*?</style>', "", text, flags=re.S)
        assert not re.search(r"\b(inf|Infinity|NaN|nan)\b", read)


@pytest.mark.parametrize("ratio", [None, math.inf])
def test_a_ratio_that_is_none_is_a_dash_beside_others(ratio):
    row = {"data": "digits", "model": "mlp", "arm": "blind", "sparsity": 0.5, "compression_ratio": 2.0}
    table = sizes_table([row, row | {"sparsity": 1.0, "compression_ratio": ratio}])
    assert [cells[-1].text for cells in table.rows] == ["2", "–"]


def test_a_record_of_before_with_an_infinite_ratio_is_read_and_shown_as_missing(empty, bap, tmp_path):
    path = next((empty / "evaluations").glob("*.json"))
    path.write_text(path.read_text().replace('"compression_ratio": null', '"compression_ratio": Infinity'))
    code, _, error = bap("report", empty, "--out", tmp_path / "report", "--samples", 0)
    assert code == 0, error
    for name in ("report.md", "results.csv"):
        assert not re.search(r"\binf\b|Infinity", (tmp_path / "report" / name).read_text())
