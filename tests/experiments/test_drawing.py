"""Pictures as SVG: what is drawn is where its number says."""

import re
import xml.etree.ElementTree as ET

from minippo.experiments.drawing import bars, box, curves, grid, line, svg, text


def boxes(picture, kind):
    """(x, y, width) of the rectangles of a class."""
    return [tuple(float(element.get(name)) for name in ("x", "y", "width"))
            for element in ET.fromstring(picture) if element.get("class") == kind]


def words(picture):
    return [element.text for element in ET.fromstring(picture).iter() if element.tag.endswith("text")]


def test_what_looks_like_markup_is_text():
    hostile = "<script>alert(1)</script>&\"'"
    picture = svg(hostile, hostile, 50, [text(1, 2, hostile)])
    found = ET.fromstring(picture)
    assert "<script" not in picture and words(picture) == [hostile]
    assert [x.text for x in found if x.tag.endswith(("title", "desc"))] == [hostile, hostile]
    assert found.get("height") == "50" and found.get("viewBox") == "0 0 760 50"


def test_a_bar_is_as_long_as_its_number_to_the_right_if_above_0_to_the_left_if_below():
    picture = bars("t", "d", ["one", "two"], {"old": [1.0, -0.5], "new": [2.0, -1.0]})
    (_, _, legend), (x, _, one), (left, _, two) = boxes(picture, "gray")
    assert legend == 22 and one == 2 * two and left + two == x   # both begin at 0
    (_, _, _), (_, _, new), (_, _, other) = boxes(picture, "blue")
    assert new == 2 * one and other == one
    assert new + one * 1 == 680 - 170   # from the lowest number, -1, to the highest, 2: the room there is


def test_without_a_number_below_0_bars_begin_beside_the_labels():
    picture = bars("t", "d", ["one"], {"old": [0.25], "new": [0.5]})
    assert boxes(picture, "gray")[1] == (90, 44, 295) and boxes(picture, "blue")[1] == (90, 64, 590)
    assert words(picture) == ["old", "new", "one", "0.25", "0.5"]


def test_a_grid_has_a_box_per_cell_none_for_an_empty_one_and_a_dashed_one_for_pad():
    picture = grid("t", "d", {100: "A"}, (100, 200, 300), [("row", "blue", ["a", "", "PAD"], False)])
    assert boxes(picture, "blue") == [(64, 44, 72)] and boxes(picture, "gray dash") == [(264, 44, 72)]
    assert words(picture) == ["A", "row", "a", "PAD"] and "marker-end" not in picture


def arrows(picture):
    return re.findall(r'd="M([^"]+)" marker-end', picture)


def test_arrows_go_down_where_a_row_hands_on_and_left_within_a_response():
    rows = [("delta", "plain", ["1", "2", "3", ""], True), ("advantage", "blue", ["4", "5", "6", ""], False)]
    picture = grid("t", "d", {}, (100, 200, 400, 500), rows, left=(1, "x"))
    assert arrows(picture) == ["100 74 100 94", "200 74 200 94", "400 74 400 94",
                               "164 111 138 111"]   # 400 is another response; 500 is empty
    assert words(picture).count("x") == 1


def test_a_curve_runs_from_its_first_point_to_its_last_and_marks_what_it_is_told():
    picture = curves("t", "d", [("h", [(0.5, 0.0), (1.5, 1.0)], {"very": (1.0, 0.5)})])
    assert 'd="M40 230 350 80"' in picture   # higher is up, and up is a smaller number
    assert '<circle class="gold" cx="195" cy="155" r="6"/>' in picture and "very" in words(picture)


def test_a_line_and_a_box_are_where_they_are_put():
    assert line([(1, 2), (3.5, 4)]) == '<path class="line" d="M1 2 3.5 4"/>'
    assert box(1, 2, 3, 4, "blue") == '<rect class="blue" x="1" y="2" width="3" height="4" rx="6"/>'
