"""The rated snippets: joined with their votes by id, a domain at a time."""

import pytest

from minippo.corpora import snippets
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.run.errors import UserError
from tests.corpora.packages import like, real, tar

TEXTS = "1\t0.5\tA gem\t indeed.\r\n2\t-1.0\tToo long    caf\u00e9s".encode()
VOTES = b"2\t-1.0\t0.8\t[0, -2]\r\n1\t0.5\t0.5\t[1, 0]"  # another order: joined by id
REVIEWS = b"1_1\t1.0\tI love it!\r\n1_2\t0.0\tBlack.\r\n12_1\t-1.0\tRETURNED"
STARS = "\ufeff1_1\t1.0\t1.0\t[2, 0]\r\n12_1\t-1.0\t0.0\t[-1]\r\n1_2\t0.0\t0.0\t[0]".encode()   # with a mark


@pytest.fixture
def archive(internet, monkeypatch):
    members = {"movieReviewSnippets_GroundTruth.txt": TEXTS, "movieReviewSnippets_anonDataRatings.txt": VOTES,
               "amazonReviewSnippets_GroundTruth.txt": REVIEWS,
               "amazonReviewSnippets_anonDataRatings.txt": STARS}
    inner = tar(**{f"hutto_ICWSM_2014/{name}": data for name, data in members.items()})
    content = tar(**{snippets.INNER: inner})
    internet.files[snippets.ARCHIVE.file] = content
    monkeypatch.setattr(snippets, "ARCHIVE", like(snippets.ARCHIVE, content))
    return internet


def test_snippets_are_joined_with_their_votes_by_id(tmp_path, archive):
    assert read("movies", cache=tmp_path) == [
        Row("movies-1", "a gem indeed.", (1.0, 0.0)),
        Row("movies-2", "too long caf\u00e9s", (0.0, -2.0)),
    ]


def test_sentences_of_a_review_are_a_group_and_a_byte_order_mark_is_no_letter(tmp_path, archive):
    assert read("amazon", tmp_path) == [
        Row("amazon-1_1", "i love it!", (2.0, 0.0), group="1"),
        Row("amazon-1_2", "black.", (0.0,), group="1"),
        Row("amazon-12_1", "returned", (-1.0,), group="12"),
    ]
    read("movies", tmp_path)
    assert archive.asked == ["vaderSentiment==3.3.2"]   # one archive for all domains


def test_an_archive_without_the_domain_says_which_file_is_missing(tmp_path, archive):
    with pytest.raises(UserError, match=r"cannot get the rated snippets \(vaderSentiment-3.3.2.tar.gz has no "
                                        r"file hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt\)"):
        read("nyt", tmp_path)


# counted in the files with sort, cut and grep: rows, means above and below 0, reviews (of movies: 0), votes
REAL = [("movies", 10605, 5242, 5326, {""}, range(15, 30)),
        ("amazon", 3708, 2128, 1482, 300, [20]), ("nyt", 5190, 2204, 2742, 498, [20])]


@pytest.mark.parametrize("name, count, positive, negative, groups, votes", REAL, ids=[c[0] for c in REAL])
def test_the_real_snippets_are_those_of_the_paper(name, count, positive, negative, groups, votes):
    rows = real(name)
    assert len(rows) == len({row.id for row in rows}) == count
    assert sum(row.rating > 0 for row in rows) == positive
    assert sum(row.rating < 0 for row in rows) == negative
    assert {len(row.votes) for row in rows} == set(votes)
    found = {row.group for row in rows}
    assert groups in (found, len(found))


def test_a_real_snippet_is_as_the_file_has_it():
    row = real("movies")[2]
    assert row == Row("movies-3", "effective but too tepid biopic", row.votes)
    assert row.rating == pytest.approx(-0.6)  # the file's own mean
