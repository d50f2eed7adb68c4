"""The defence, with which the last notebook ends: each promise names a notebook and a test that exist."""

import re

import pytest

from workshop_lib.settings import PROJECT_ROOT

LAST = sorted((PROJECT_ROOT / "solutions").glob("*.py"))[-1]
ROWS = re.findall(r"^# \| (.+?) \| (.+?) \| ([\d, ]+) · `(tests/\S+)` \|$", LAST.read_text(), re.M)


def test_it_is_the_last_cell_and_has_a_line_for_each_notebook() -> None:
    last_cell = LAST.read_text().rpartition("# %%")[2]
    assert last_cell.startswith(" [markdown]\n# ## The defence\n")
    assert last_cell.count("\n# |") == len(ROWS) + 2, "a line that names no notebook, or no test"
    shown = {number for _, _, numbers, _ in ROWS for number in numbers.split(", ")}
    assert shown >= {"00", "01", "05", "06", "07", "08", "09", "10"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_where_it_is_shown_exists(row: tuple[str, str, str, str]) -> None:
    _, _, numbers, test = row
    assert (PROJECT_ROOT / test).is_file()
    for number in numbers.split(", "):
        assert list((PROJECT_ROOT / "notebooks").glob(f"{number}_*.ipynb"))
