"""Minimal distances and cascades in a report: curves and tables say what the numbers are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bap_jax.errors import SettingError
from bap_jax.report import ReportInput, figures
from bap_jax.report.build import build_report
from bap_jax.report.cascades import stage_tables
from bap_jax.report.distances import POINTS, Distances, distances_table, quantile, survival
from bap_jax.report.table import MISSING

VALUES = np.array([0.0, 0.0, 0.1, 0.2, 0.3, np.inf])


def one(values=VALUES, **changes):
    return Distances(
        **{**dict(data="d", model="m", arm="blind", sparsity=0.9, attack="fmn", norm="l2", values=values), **changes}
    )


@given(st.lists(st.floats(0, 10) | st.just(math.inf), min_size=1, max_size=600))
def test_a_curve_is_the_share_that_lies_farther(values):
    values = np.array(values)
    radii, shares = survival(values)
    assert len(radii) == len(shares) <= POINTS and radii[0] == 0
    assert all(share == pytest.approx((values > radius).mean()) for radius, share in zip(radii, shares, strict=True))
    finite = values[np.isfinite(values)]
    assert radii[-1] == (finite.max() if finite.size else 0)


def test_a_table_counts_what_was_not_found_and_what_was_wrong():
    row = dict(zip(distances_table([one()]).columns, distances_table([one()]).rows[0], strict=True))
    assert row["attack"].text == "fmn (L2)" and row["sparsity"].text == "90 %"
    assert [row[name].text for name in ("25 %", "median", "75 %")] == ["0.1", "0.2", "0.3"]
    assert [row[name].text for name in ("not found", "right", "wrong")] == ["1", "4", "2"]


def test_a_median_that_was_not_reached_is_no_number():
    few = one(np.array([0.1, np.inf, np.inf, np.inf]))
    assert few.median == math.inf and distances_table([few]).rows[0][6].text == MISSING
    none = one(np.zeros(3))
    assert math.isnan(none.median) and math.isnan(quantile(none.right, 0.5))
    for found in ([few], [none], [one(), one(arm="clean", sparsity=0.5)]):
        assert len(figures.png_bytes(figures.distances_figure(found), dpi=40)) > 1000


def test_every_attack_has_a_picture_of_its_own(make_rows):
    found = [one(data="digits", model="mlp", norm=norm, arm=arm) for norm in ("l2", "linf") for arm in ("blind", "clean")]
    report = build_report(ReportInput(make_rows(seeds=(0,)), title="t", distances=found, num_resamples=5))
    section = next(section for section in report.sections if section.title == "Minimal distances")
    assert [picture.name for picture in section.pictures] == ["distances", "distances-2"]
    assert "fmn (L2)" in section.pictures[0].alt and "fmn (L∞)" in section.pictures[1].alt
    assert len(section.lead[0].rows) == 4


def test_a_cascade_is_told_attack_by_attack_and_seeds_are_averaged():
    common = {"data": "d", "model": "m", "arm": "blind", "sparsity": 0.9, "epsilon": 0.1, "cascade": "autoattack (L∞)"}
    stages = [
        {**common, "stage": stage, "accuracy": accuracy + shift}
        for shift in (0.0, 0.1)
        for stage, accuracy in (("clean", 0.9), ("apgd-ce", 0.5), ("square", 0.4))
    ]
    other = {**common, "cascade": "fgsm+pgd (L2)", "stage": "fgsm", "accuracy": 0.3}
    first, second = stage_tables([*stages, other])
    assert first.columns[-3:] == ("clean, %", "after apgd-ce, %", "after square, %") and len(first.rows) == 1
    assert [cell.text for cell in first.rows[0][-3:]] == ["95.0", "55.0", "45.0"]
    assert second.title.startswith("fgsm+pgd (L2)") and second.rows[0][-1].text == "30.0"


def test_differences_are_amplified_by_what_is_said():
    clean = np.full((2, 3, 3), 0.5)
    attacked = clean + np.array([0.05, -0.02])[:, None, None]
    assert figures.amplification(clean, attacked) == pytest.approx(20)
    assert figures.amplification(clean * 255, attacked * 255, (0.0, 255.0)) == pytest.approx(20)
    assert figures.amplification(clean, clean) == 1.0
    figure = figures.samples_figure(
        figures.Samples("t", clean, attacked, "34", "35", clean_predictions="34", distances=(0.05, 0.02))
    )
    texts = [axes.get_title() for axes in figure.axes] + [axes.get_ylabel() for axes in figure.axes]
    assert "✓ 3" in texts and "✗ 5" in texts and "difference\n× 20" in texts
    drawn = figure.axes[4].images[0].get_array()  # the first difference fills the scale upwards
    assert float(np.asarray(drawn).max()) == pytest.approx(1.0)
    with pytest.raises(SettingError, match="samples"):
        figures.samples_figure(figures.Samples("t", np.zeros((0, 3, 3)), np.zeros((0, 3, 3))))
