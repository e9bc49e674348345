"""The frame of every page: it needs nothing else, and whatever comes from a run is text on it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minippo.run.errors import UserError
from minippo.tools.shared.page import ASSETS, embedded, escaped, page, table, write
from tests.robustness.posix import posix

HOSTILE = '</td><script>alert("&amp;")</script>\x1b[31m\u202e\x00\'<!--'
SHOWN = '</td><script>alert("&amp;")</script>\\x1b[31m\\u202e\\x00\'<!--'   # control characters in letters


class Read(HTMLParser):
    """What a browser finds: names of elements, attributes, texts by element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.inside = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.inside.append(tag)

    def handle_endtag(self, tag):
        self.inside.pop()

    def handle_data(self, data):
        self.texts.append((self.inside[-1] if self.inside else "", data))

    def of(self, tag):
        return [text for inside, text in self.texts if inside == tag]


def test_hostile_text_is_text_in_the_title_in_a_cell_and_in_a_caption():
    found = Read(page(HOSTILE, table([HOSTILE, "b"], [[HOSTILE, HOSTILE]], HOSTILE)))
    for tag in ("title", "h1", "td", "caption"):
        assert found.of(tag) == [SHOWN]
    assert found.of("th") == [SHOWN, "b", SHOWN]
    assert "script" not in found.tags


def test_hostile_text_stays_inside_an_attribute():
    name = HOSTILE + "\" onload='x'"
    [(key, value)] = Read(f'<p title="{escaped(name)}">').attributes
    assert key == "title" and value == SHOWN + "\" onload='x'"


def test_data_for_a_script_comes_back_whole_and_cannot_end_its_element():
    found = Read(embedded("given", {"text": HOSTILE, "n": [1, None]}) + "<p>after</p>")
    [text] = found.of("script")
    assert json.loads(text) == {"text": HOSTILE, "n": [1, None]} and found.tags == ["script", "p"]
    with pytest.raises(ValueError):   # no JSON in a browser
        embedded("given", float("nan"))


def test_a_page_forbids_itself_to_load_anything():
    text = page("a", "")
    policy = next(value for key, value in Read(text).attributes
                  if key == "content" and value.startswith("default-src"))
    assert re.split(r";\s*", policy) == ["default-src 'none'", "style-src 'unsafe-inline'",
                                         "script-src 'unsafe-inline'", "img-src data:"]
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", text)
    assert text.startswith("<!doctype html>") and '<html lang="en">' in text and 'name="viewport"' in text


def test_a_page_has_the_style_of_all_and_that_of_its_name_and_a_script_only_if_there_is_one():
    common, own = ((ASSETS / f"{name}.css").read_text(encoding="utf-8") for name in ("page", "report"))
    text = page("a", "<p>b</p>", "report", given=[1])
    assert common in text and own in text and "<script" not in text   # report.js is not there
    assert common in page("a", "") and own not in page("a", "")


def test_the_first_cell_of_a_row_is_its_heading_and_those_of_the_header_are_of_columns():
    assert table(["", "n"], [["one", 1]]) == (
        '<div class="wide"><table><thead><tr><th scope="col"></th><th scope="col">n</th></tr></thead>\n'
        '<tbody><tr><th scope="row">one</th><td>1</td></tr></tbody></table></div>\n')


def colours(block):
    return dict(re.findall(r"--(\w+): (#\w{6});", block))


def contrast(one, other):
    """Of two colours such as #1c1f24, 1 to 21. Source: WCAG 2.2, "contrast ratio", "relative luminance" """
    def luminance(colour):
        channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


LIGHT, DARK = (colours(block) for block in re.findall(
    r":root \{(.*?)\}", (ASSETS / "page.css").read_text(encoding="utf-8"), re.S))


def test_letters_can_be_read_on_both_grounds():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert LIGHT.keys() == DARK.keys() and LIGHT["ground"] != DARK["ground"]
    for theme in (LIGHT, DARK):
        for name in ("letters", "quiet", "accent", "good", "bad", "warn"):
            for ground in ("ground", "raised"):
                assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground)


def test_half_a_surrogate_pair_which_json_may_hold_is_written_as_a_question_mark(tmp_path):
    write(tmp_path / "a.html", page("a", escaped("x\ud800y")))
    assert "x?y" in (tmp_path / "a.html").read_text(encoding="utf-8")


@posix
def test_a_page_is_not_written_through_a_link_nor_without_a_name(tmp_path):
    far = tmp_path / "far"
    far.write_text("mine")
    (tmp_path / "link.html").symlink_to(far)
    with pytest.raises(UserError, match="link.html: a link"):
        write(tmp_path / "link.html", "x")
    with pytest.raises(UserError, match="--out is empty; name a file"):
        write(" ", "x")
    with pytest.raises(UserError, match="nowhere.a.html: there is no such folder"):
        write(Path(tmp_path, "nowhere/a.html"), "x")
    assert far.read_text() == "mine"
