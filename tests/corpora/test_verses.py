"""Verses, old and modern: how two files that are programs become rows without being run."""

import json

import pytest

import finetune_ppo
import pretrain
from minippo.corpora import chrf, verses
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.run.errors import UserError
from minippo.run.exits import launch
from tests.corpora.packages import like, real, wheel

HEAD = "# generated\n\nfrom pythonbible.bible.bible import Bible\n\n"


def program(texts, head=HEAD):
    """A file as the packages have it: the texts in one string, and where each begins and ends."""
    begins, ends, whole = {}, {}, ""
    for number, text in texts.items():
        begins[number], ends[number] = len(whole), len(whole) + len(text)
        whole += text + "\n"
    return f'{head}bible = Bible(\n    Version.ANY,\n    """{whole}""",\n    {begins},\n    {ends})\n'


@pytest.fixture
def translations(internet, tmp_path, monkeypatch):
    """A function: the rows of {number: text}, old and new."""
    def rows(old, new, head=HEAD):
        packages = {}
        for name, texts in (("OLD", old), ("NEW", new)):
            before = getattr(verses, name)
            content = wheel(**{verses.FILES[before]: program(texts, head)})
            internet.files[before.file] = content
            packages[like(before, content)] = verses.FILES[before]
            monkeypatch.setattr(verses, name, list(packages)[-1])
        monkeypatch.setattr(verses, "FILES", packages)
        return read("verses", tmp_path)
    return rows


def test_verses_are_joined_by_number_the_old_one_is_the_prompt(translations):
    rows = translations({1001001: "And he saith.", 1001002: "Lo!"}, {1001002: "Look!", 1001001: "He  says."})
    assert rows == [Row("verses-1001001", "He says.", prompt="And he saith.\n"),
                    Row("verses-1001002", "Look!", prompt="Lo!\n")]


def test_a_verse_that_one_side_lacks_is_no_row_and_a_repeated_old_one_is_one(translations):
    rows = translations({1: "", 2: "Lo!", 3: "And it was so.", 4: "And it was so."},
                        {1: "a", 3: "It was so.", 4: "And so it was."})
    assert [(row.id, row.text) for row in rows] == [("verses-3", "It was so.")]


@pytest.mark.parametrize("verse, clean", [
    ("God`s [own]\n  king\u2019s", "God's own king's"),
    ("Who want to harm me. Psalm 72 By Solomon.", "Who want to harm me."),
    ("Full of days. BOOK I Psalm 1", "Full of days."),
    ("Don`t forsake me. BEIT", "Don't forsake me."),
    ("Of sin. SIN AND SHIN", "Of sin."),
    ("as it is written in the second psalm", "as it is written in the second psalm"),
    ("LORD OF LORDS.", "LORD OF LORDS."),
    ("Beside the flocks of your companions? Lover", "Beside the flocks of your companions?"),
    ("Drink, Friends.", "Drink, Friends."),
])
def test_headings_of_what_follows_and_signs_of_the_edition_are_no_part_of_a_verse(translations, verse, clean):
    row, = translations({1: "Lo!"}, {1: verse})
    assert row.text == clean


def test_the_program_in_the_package_is_not_run(translations, tmp_path):
    head = HEAD + f"open({str(tmp_path / 'trace')!r}, 'w')\n"
    assert len(translations({1: "Lo!"}, {1: "Look!"}, head)) == 1
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("cached, missing", [("", "the old verses"), ("OLD", "the modern verses")])
def test_without_a_network_the_translation_that_is_missing_is_named(tmp_path, offline, cached, missing,
                                                                    monkeypatch):
    if cached:
        content = wheel(**{verses.FILES[verses.OLD]: program({1: "Lo!"})})
        old = like(verses.OLD, content)
        monkeypatch.setattr(verses, "FILES", {old: verses.FILES[verses.OLD], verses.NEW: "a.py"})
        monkeypatch.setattr(verses, "OLD", old)
        (tmp_path / old.file).write_bytes(content)
    with pytest.raises(UserError, match=rf"cannot get {missing} \(no network\): try again with a network"):
        read("verses", tmp_path)


@pytest.mark.slow
def test_the_real_verses_are_30682_with_different_old_sides(offline):
    rows = real("verses")
    # 31,102 numbers, 31,083 with a text on both sides, 30,689 with different ones on the old side as it is
    # printed, 30,682 without its brackets
    assert len(rows) == len({row.id for row in rows}) == len({row.prompt for row in rows}) == 30682
    assert rows[0] == Row("verses-1001001", "In the beginning God created the heavens and the earth.",
                          prompt="In the beginning God created the heavens and the earth.\n")
    assert not [row for row in rows if "Psalm 1" in row.text or "`" in row.text + row.prompt]


def test_verses_go_through_stages_1_and_3_paid_by_chrf_to_the_true_text(translations, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIPPO_CACHE", str(tmp_path))
    monkeypatch.setattr(chrf, "verses", chrf.against("verses"))   # one that has not read the real ones
    translations({i: f"And he saith {i}." for i in range(400)}, {i: f"He says {i}." for i in range(400)})
    flags = "--data verses --device cpu --precision fp32".split()
    small = "--passes 1 --width 16 --heads 2 --layers 1 --vocab-size 300 --context 48 --samples 1".split()
    launch(pretrain.main, pretrain.Config, "", flags + small)
    launch(finetune_ppo.main, finetune_ppo.Config, "", [
        *flags, "--score", "minippo.corpora.chrf:verses", "--missing-end-score", "0",
        *"--iterations 1 --rollout-size 16 --minibatch-size 8 --response-length 12 --out ppo".split()])
    figures = json.loads((tmp_path / "ppo/comparison.json").read_text())
    for sample in figures["samples"]:   # a sample's prompt is "And he saith 7.\n"
        true = "He says " + sample["prompt"].split()[-1]
        for written in (sample["reference"], sample["policy"]):
            assert written["score"] == pytest.approx(chrf.chrf([written["text"]], [true]) / 10 - 5, abs=1e-3)
