"""The published leaderboards, and where networks of ours stand among them."""

import collections
import math
import re

import pytest

from bap_jax.errors import SettingError
from bap_jax.report.leaderboard import (
    Entry,
    entries_of,
    leaderboard_html,
    leaderboard_table,
    published,
    rank,
    standard_error,
    write_leaderboard,
)

ROW = {"data": "cifar10", "model": "resnet18", "arm": "blind", "process": "", "sparsity": 0.9, "seed": 0, "split": "test"}


def evaluated(clean=0.8, robust=0.44, epsilon=0.031, num_examples=10_000, attack="autoattack", **more):
    row = ROW | {"num_examples": num_examples} | more
    return [
        row | {"attack": "clean", "norm": "", "epsilon": 0.0, "accuracy": clean},
        row | {"attack": attack, "norm": "linf", "epsilon": epsilon, "accuracy": robust},
    ]


def test_the_published_tables_are_whole():
    entries = published()
    counts = collections.Counter((entry.data, entry.structure, entry.model) for entry in entries)
    assert counts[("CIFAR-10", "US", "resnet18")] == counts[("CIFAR-10", "US", "vgg16_survey")] == 30
    assert counts[("CIFAR-10", "S", "resnet18")] == 12 and counts[("SVHN", "S", "vgg16_survey")] == 9
    assert counts[("SVHN", "US", "resnet18")] == 24 and counts[("SVHN", "US", "vgg16_survey")] == 28  # some are not published
    assert len({(entry.method, entry.comparable) for entry in entries}) == len(entries) == 154
    assert all(0.05 < entry.autoattack < entry.clean < 1 for entry in entries)
    assert {entry.sparsity for entry in entries if entry.structure == "US"} == {0.9, 0.95, 0.99}
    assert {entry.sparsity for entry in entries if entry.structure == "S"} == {0.5, 0.75, 0.9}
    assert all(entry.date and entry.source for entry in entries)
    # the firsts that the field names
    first = {
        key: max((e for e in entries if e.comparable == key), key=lambda e: e.autoattack)
        for key in {e.comparable for e in entries}
    }
    assert first[("CIFAR-10", "resnet18", "US", 0.99)].method == "HARP"
    assert first[("CIFAR-10", "resnet18", "US", 0.9)].autoattack == 0.4649
    assert first[("SVHN", "vgg16_survey", "US", 0.95)].autoattack == 0.4994
    assert first[("CIFAR-10", "resnet18", "S", 0.5)].method == "TwinRep"


def test_places_and_their_standard_error():
    others = published()
    (ours,) = entries_of(evaluated(robust=0.452))
    assert rank(ours, others) == (4, 2, 4, 10)  # behind 46.49, 45.40, 45.35; one error is 0.5 points
    assert rank(ours, others, "clean").place == 5  # behind 83.38, 83.29, 80.69, 80.54
    worse = ours._replace(autoattack=0.0, num_autoattack=100)
    assert rank(worse, others).place == 11
    assert rank(ours._replace(num_autoattack=100), others) == (4, 1, 10, 10)
    assert rank(ours._replace(sparsity=0.97), others) == (None, None, None, 0)
    assert rank(ours._replace(clean=math.nan), others, "clean").place is None
    best = max((e for e in others if e.comparable == ours.comparable), key=lambda e: e.autoattack)
    assert rank(best, others) == (1, 1, 1, 9)
    assert standard_error(0.2, 100) == pytest.approx(0.04)
    with pytest.raises(SettingError, match="by"):
        rank(ours, others, "pgd")


@pytest.mark.parametrize(
    ("options", "remarks"),
    [
        ({}, ()),
        ({"epsilon": 8 / 255}, ("ε = 8/255",)),
        ({"model": "resnet8", "num_examples": 500}, ("another network, resnet8", "500 images")),
        ({"budget": "imported harp"}, ("trained elsewhere",)),
        ({"data": "svhn_cropped", "split": "validation"}, ("on validation data",)),
        ({"data": "mnist"}, ("other data",)),
    ],
)
def test_what_differs_from_the_protocol_is_marked(options, remarks):
    (entry,) = entries_of(evaluated(**options))
    assert entry.remarks == remarks


def test_which_evaluations_count():
    assert entries_of(evaluated(attack="pgd-20")) == entries_of(evaluated(epsilon=0.1)) == ()
    rows = [*evaluated(seed=0), *evaluated(robust=0.4, seed=1), *evaluated(robust=0.43, epsilon=8 / 255, seed=0)]
    (entry,) = entries_of(rows)
    assert entry.autoattack == pytest.approx(0.42) and entry.remarks == ("mean of 2 seeds",)
    assert len(entries_of([*evaluated(), *evaluated(sparsity=0.95), *evaluated(arm="clean")])) == 3


def test_the_page(tmp_path):
    rows = [*evaluated(arm="<b>blind</b>"), *evaluated(arm="small", model="resnet8")]
    paths = write_leaderboard(rows, tmp_path)
    page = paths["leaderboard.html"].read_text()
    assert page.count("<tr>") == 1 + 154 + 2 and "&lt;b&gt;blind" in page and "<b>blind" not in page
    assert "another network, resnet8" in page and page.count("<select") == 5 and "http" not in page
    table = leaderboard_table((*published(), *entries_of(rows)))
    for row in table.rows:
        assert len(row) == len(table.columns)
    group = [row for row in table.rows if [cell.text for cell in row[1:5]] == ["CIFAR-10", "ResNet-18", "weights", "90 %"]]
    assert [row[0].text for row in group][:4] == ["FlyingBird", "HARP", "PwoA", "<b>blind</b>"]
    assert "**<" not in paths["leaderboard.md"].read_text() and re.search(r"\*\*4 of 11\*\*", paths["leaderboard.md"].read_text())
    with pytest.raises(SettingError, match="bap evaluate RUN --attack autoattack"):
        write_leaderboard(evaluated(attack="fgsm"), tmp_path)
    assert isinstance(leaderboard_html([Entry("a", "b", "c", "US", 0.5, 1.0, 0.5, 1, 1, False)]), str)


def test_structures_are_ranked_among_structures():
    rows = [
        *evaluated(robust=0.445, sparsity=0.75, structure="S"),
        *evaluated(robust=0.445, sparsity=0.95, arm="b", structure="US"),
    ]
    filters, weights = entries_of(rows)
    assert (filters.structure, weights.structure) == ("S", "US")
    assert rank(filters, published()).of == 4 and rank(filters, published()).place == 2  # behind TwinRep's 45.21
    assert rank(weights, published()).of == 10
    assert {entry.structure for entry in entries_of(rows, structure="S")} == {"S"}
