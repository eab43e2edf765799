"""The table of methods in the documentation is that of the methods."""

from tools.methods_table import PAGE, table, updated


def test_the_page_is_current():
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page) == page, "python -m tools.methods_table writes it"


def test_a_row_has_a_cell_for_each_column():
    rows = table().splitlines()
    assert {row.count(" | ") for row in rows} == {9}
