"""Tables for the terminal and for Markdown."""

import pytest

from minippo.tools.shared.tables import markdown, spread, table, width


def test_the_first_column_stands_left_and_the_others_right():
    assert table(["", "KL", "score"], [["policy", 3.4, "+1.31"], ["a", 10, ""]]) == (
        "         KL  score\n"
        "policy  3.4  +1.31\n"
        "a        10")   # no blanks at the end of a line


def test_a_table_without_rows_is_its_header():
    assert table(["model", "KL"], []) == "model  KL"


@pytest.mark.parametrize("text, columns", [
    ("abc", 3), ("", 0),
    ("\u4f60\u597d", 4),   # two letters of East Asia, two columns each
    ("e\u0301", 1),        # an accent that stands on the letter before
    ("\uff21", 2),         # a full-width A
])
def test_a_width_is_in_columns_of_the_terminal(text, columns):
    assert width(text) == columns


def test_wide_letters_do_not_shift_the_columns_behind_them():
    assert table(["a", "n"], [["\u4f60\u597d", 1], ["abcd", 2]]).splitlines() == [
        "a     n", "\u4f60\u597d  1", "abcd  2"]


def test_markdown_keeps_a_bar_inside_its_cell():
    assert markdown(["a", "b"], [["x|y", 1]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_a_spread_is_the_mean_with_the_ends_unless_they_show_the_same():
    assert spread([0.1, 0.3, 0.2], 2) == "0.20 (0.10 to 0.30)"
    assert spread([0.701, 0.699], 2) == spread([0.7], 2) == "0.70"
    assert spread([-0.001], 2) == "0.00"   # no minus before 0
