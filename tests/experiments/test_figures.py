"""The pictures of the claims are drawn from the CSVs, and one that is out of date is found."""

import pytest

from experiments import figures


@pytest.fixture
def rows(published):
    for split in ("test", "validation"):
        published("clean", [0.3, 0.3], split=split, gap=0.1)
        published("uniform 0.1", [0.4, 0.4], split=split)
        published("uniform 0.3", [0.45, 0.45], split=split)
        published("blind", [0.5, 0.5], split=split)
    return published.rows


def test_processes_show_every_process_of_clean_pruning_and_the_spread_of_the_arms(rows):
    left, right = figures.processes_figure(rows).axes
    assert len(left.get_lines()) == 2  # one sparsity, two processes
    low, high = sorted(line.get_ydata()[1] for line in left.get_lines())
    assert (low, high) == pytest.approx((0.0, 20.0))
    names = [text.get_text() for text in right.get_legend().get_texts()]
    spread = {name: line.get_ydata() for name, line in zip(names, right.get_lines(), strict=True)}
    assert list(spread) == ["clean", "uniform 0.3", "blind"]  # the uniform budget that validation data prefers
    assert spread["clean"] == pytest.approx([0.0, 20 / 2**0.5]) and spread["blind"] == pytest.approx([0.0, 0.0])


def test_budgets_are_a_line_over_the_radius_and_the_blind_arm_is_level(rows):
    figure = figures.budgets_figure(rows)
    drawn = [(line.get_xdata(), line.get_ydata()) for line in figure.axes[0].get_lines()]
    assert ([0.1, 0.3], pytest.approx([40.0, 45.0])) in [(list(x), list(y)) for x, y in drawn]
    assert ([0.1, 0.3], pytest.approx([50.0, 50.0])) in [(list(x), list(y)) for x, y in drawn]  # blind


def test_trade_off_has_a_point_for_every_arm(rows):
    axes = figures.trade_off_figure(rows).axes[0]
    points = {
        (round(x, 3), round(y, 3)) for line in axes.get_lines() if line.get_marker() != "None" for x, y in line.get_xydata()
    }
    assert (0.0, 50.0) in points and len(points) == 4
    assert {text.get_text() for text in axes.texts} == {"0.1", "0.3"}


def test_cost_is_a_point_for_every_arm_at_its_seconds_and_its_score(published):
    published("hydra", [0.5, 0.5], train_seconds=20.0)
    published("hydra", [0.5, 0.5], split="validation", train_seconds=20.0)
    published("pwoa", [0.4, 0.4], train_seconds=5.0)
    axes = figures.cost_figure(published.rows).axes[0]
    points = {tuple(line.get_xydata()[0].round(3)) for line in axes.get_lines() if line.get_marker() != "None"}
    assert points == {(20.0, 50.0), (5.0, 40.0)} and axes.get_xscale() == "log"


def test_a_picture_of_another_csv_is_stale(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text("one", encoding="utf-8")
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    monkeypatch.setattr(figures, "CLAIMED", ("x",))
    monkeypatch.setattr(figures, "COMPARED", {"y": {"cost": figures.cost_figure}})  # which is not published
    assert len(figures.stale()) == 3  # not there
    for kind in figures.DRAWN:
        (tmp_path / f"x_{kind}.svg").write_text("<svg/>" + figures.stamp("x"), encoding="utf-8")
    assert figures.stale() == []
    (tmp_path / "x.csv").write_text("two", encoding="utf-8")
    assert len(figures.stale()) == 3


def test_the_published_pictures_belong_to_the_published_csvs():
    assert figures.stale() == [], "run python -m experiments.figures"
