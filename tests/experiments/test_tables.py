"""The published tables are what the published CSVs give."""

from experiments import tables


def test_the_tables_in_the_readmes_and_the_definitions_are_up_to_date():
    for path in tables.PAGES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- table " in text and tables.fill(text) == text, f"{path}: run python -m experiments.tables"


def test_a_stale_table_is_drawn_anew():
    text = "before <!-- table scores digits_aer -->\nold\n<!-- end --> after"
    drawn = tables.fill(text)
    assert "old" not in drawn and drawn.startswith("before ") and drawn.endswith(" after") and "| blind |" in drawn


def cells_of(drawn):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in drawn.splitlines()[2:]]


def test_claims_by_hand(published):
    published("clean", [0.3, 0.3], gap=0.1)
    published("uniform 0.1", [0.4, 0.4], gap=0.05)
    published("uniform 0.3", [0.5, 0.5], gap=0.05)
    published("blind", [0.58, 0.56])
    published("uniform 0.1", [0.6, 0.6], split="validation")  # validation data prefers the one that test data does not
    published("uniform 0.3", [0.5, 0.5], split="validation")
    first, worst, sensitivity, own, excess, steady, _, ahead = cells_of(tables.claims_table("x"))
    assert first[1:] == ["0.0", "0.0 … 0.0", ""] and worst[1:] == ["14.1", "14.1 … 14.1", "larger"] and "ε 0.2" in worst[0]
    assert sensitivity[1] == "10.0" and own[1:3] == ["2.0", "–"] and excess[1:] == ["8.0", "8.0 … 8.0", "more than chance"]
    # .05 · √2 at ε .2 and 0 on clean images: 3.5 points on average
    assert steady[0] == "3. stability, blind − uniform 0.1" and steady[1:] == ["-3.5", "-3.5 … -3.5", "steadier"]
    assert ahead[0] == "AER score, blind − uniform 0.1, the best uniform budget on validation data"
    assert ahead[1:] == ["17.0", "16.0 … 18.0", "ahead"]


def test_a_budget_chosen_on_test_data_is_told_so(published):
    published("uniform 0.1", [0.4, 0.4])
    published("blind", [0.5, 0.3])
    line = cells_of(tables.claims_table("x"))[-1]
    assert "on test data" in line[0] and line[1:] == ["0.0", "-10.0 … 10.0", "open: the interval holds 0"]


def test_differences_of_one_arm_from_the_others(published):
    published("FAT", [0.45, 0.55])
    published("blind", [0.5, 0.5])
    published("MMA", [0.4, 0.45])
    first, second = cells_of(tables.differences_table("x"))
    assert first == ["blind − FAT", "0.0", "-5.0 … 5.0", "open: the interval holds 0"]
    assert second == ["blind − MMA", "7.5", "5.0 … 10.0", "ahead"]


def test_standings_of_blind_arms(published):
    for split in ("test", "validation"):
        published("uniform 0.1", [0.5, 0.5], split=split)
        published("uniform 0.3", [0.4, 0.4], split=split)
        published("blind", [0.45, 0.55], split=split)
        published("blind, path ray", [0.4, 0.4], split=split)
    first, second = cells_of(tables.standings_table("x"))
    assert first == ["blind", "50.0", "0.0", "-5.0 … 5.0", "0.0", "open: the interval holds 0"]
    assert second == ["blind, path ray", "40.0", "-10.0", "-10.0 … -10.0", "10.0", "behind"]
    assert "| − uniform 0.1 |" in tables.standings_table("x")


def test_both_readings_stand_side_by_side(published):
    published("uniform 0.1", [0.4, 0.4])
    published("blind", [0.6, 0.6])
    published("uniform 0.1", [0.4, 0.4], attack="deepfool-truncated", norm="rms")
    published("blind", [0.25, 0.25], attack="deepfool-truncated", norm="rms")
    drawn = tables.readings_table("x")
    assert "pgd-20 (L∞), ε ≤ 0.2 | deepfool-truncated (RMS, cut points), ε ≤ 0.2 |" in drawn
    assert cells_of(drawn)[-1] == ["rank agreement with the first", "1.00", "-1.00"]


def test_sizes_are_means_and_what_is_missing_is_no_zero(published):
    published("blind", [0.5], nonzero=1200, bytes=9000, flops_dense=None)
    assert cells_of(tables.sizes_table("x")) == [["blind, 90 %", "1,200", "–", "9,000", "–", "–"]]
