"""The published tables are what the published CSVs give."""

from experiments import tables


def test_the_tables_in_the_readmes_are_up_to_date():
    for path in (tables.ROOT / "README.md", tables.ROOT / "experiments" / "README.md"):
        text = path.read_text(encoding="utf-8")
        assert "<!-- table " in text and tables.fill(text) == text, f"{path}: run python -m experiments.tables"


def test_a_stale_table_is_drawn_anew():
    text = "before <!-- table scores digits_aer -->\nold\n<!-- end --> after"
    drawn = tables.fill(text)
    assert "old" not in drawn and drawn.startswith("before ") and drawn.endswith(" after") and "| blind |" in drawn
