"""Rows, and a user's own files."""

import csv
import json

import pytest

from minippo import data
from minippo.corpora import own
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.run.errors import UserError


def file(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def complaint(path, **options):
    with pytest.raises(UserError) as caught:
        read(str(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_rating_is_the_mean_of_the_votes_and_none_without_votes():
    assert Row("a", "text", (3.0, -1.0, 1.0)).rating == 1.0
    assert Row("a", "text").rating is None


def test_where_a_row_was_read_is_known_and_changes_neither_it_nor_its_name(tmp_path):
    row, = read(file(tmp_path, "a.csv", "text,rating\n\ngood,1\ngood,\n"))
    assert row.where == f"{tmp_path / 'a.csv'} line 3"
    bare = Row(row.id, "good", (1.0,))
    assert row == bare and hash(row) == hash(bare) and repr(row) == repr(bare)   # of resumed runs, too
    file(tmp_path, "r/pos/1.txt", "good"), file(tmp_path, "r/neg/1.txt", "bad")
    assert read(tmp_path / "r")[0].where == str(tmp_path / "r/pos/1.txt")


def test_a_text_file_is_one_text_a_line(tmp_path):
    path = file(tmp_path, "a.TXT", "\ufeffgood film\r\n\r\n  caf\u00e9 \rbad film")
    assert [row.text for row in read(path)] == ["good film", "caf\u00e9", "bad film"]
    assert [row.rating for row in read(path)] == [None] * 3


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", 'id,text,rating\n7,"good, really",1.5\n8,bad,-2\n9,new,\n'),
        ("a.csv", '\ufeffID, Review ,Label,votes\n7,"good, really",1.5,12\n8,bad,-2,0\n9,new,,\n'),
        ("a.tsv", "id\tsentence\tlabel\n7\tgood, really\t1.5\n8\tbad\t-2\n9\tnew\t\n"),
        (
            "a.jsonl",
            '{"id": 7, "text": "good, really", "votes": [1, 2]}\n\n'
            '{"id": "8", "content": "bad", "rating": -2}\n{"id": 9, "text": "new"}\n',
        ),
    ],
)
def test_tables_and_json_lines_give_the_same_rows(tmp_path, name, content):
    rows = read(file(tmp_path, name, content))
    assert {row.id: row.text for row in rows} == {"7": "good, really", "8": "bad", "9": "new"}
    assert [row.rating for row in rows] == [1.5, -2.0, None]


def test_words_for_labels_become_signs_and_numbers_stay_as_they_are(tmp_path):
    words = file(tmp_path, "a.csv", "review,sentiment\na,positive\nb,NEG\nc,pos\nd,negative\n")
    assert [row.rating for row in read(words)] == [1.0, -1.0, 1.0, -1.0]
    numbers = file(tmp_path, "b.csv", "text,label\na,0\nb,1\n")
    assert [row.rating for row in read(numbers)] == [0.0, 1.0]


def test_pairs_keep_prompt_chosen_and_rejected(tmp_path):
    pairs = [
        {"prompt": "say", "chosen": "yes", "rejected": "no"},
        {"chosen": "good", "rejected": "bad"},
        {"chosen": "good", "rejected": ""},  # nothing to compare with: skipped
    ]
    rows = read(file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, pairs))))
    assert [(row.prompt, row.text, row.rejected) for row in rows] == [
        ("say", "yes", "no"),
        ("", "good", "bad"),
    ]


def test_pairs_that_share_their_chosen_text_have_different_ids(tmp_path):
    pairs = '{"chosen": "a", "rejected": "b"}\n{"chosen": "a", "rejected": "c"}\n'
    assert len(read(file(tmp_path, "a.jsonl", pairs))) == 2


def test_rows_of_one_group_stay_in_one_part_of_the_split(tmp_path):
    lines = [{"prompt": f"p{i % 80}", "chosen": f"good {i}", "rejected": f"bad {i}", "group": i % 80}
             for i in range(640)]
    rows = read(file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    groups = [{row.group for row in part} for part in data.split(rows).values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 80


def test_ids_do_not_depend_on_the_row_order(tmp_path):
    forth = read(file(tmp_path, "a.txt", "one\ntwo\nthree\n"))
    back = read(file(tmp_path, "b.txt", "three\ntwo\n\none\n"))
    assert {row.id: row.text for row in forth} == {row.id: row.text for row in back}
    # printf '\0one\0' | sha256sum: a changed id would move rows to another split
    assert forth[0].id == "ff25f983f0d15010"


@pytest.mark.parametrize("content", [
    "text,rating\na,1\nb,2\na,5\na,\na,5\n", "id,text,rating\n1,a,1\n2,b,2\n1,a,5\n1,a,5\n",
    "id,text,rating\n4,a,1\n2,b,2\n1,a,5\n3,a,5\n",
], ids=["no ids", "the same id", "other ids"])
def test_a_text_that_is_repeated_is_one_row_with_all_votes(tmp_path, content):
    one, other = read(file(tmp_path, "a.csv", content))
    assert (one.text, one.votes) == ("a", (1.0, 5.0, 5.0))
    assert (other.text, other.votes) == ("b", (2.0,))
    assert one.id == "1" or not content.startswith("id")   # the smallest, in whatever order


def test_a_rated_text_may_have_a_prompt_and_then_keeps_its_spaces(tmp_path):
    content = '{"prompt": "Q: why?", "text": " so ", "rating": 1}\n{"text": " so ", "rating": 2}\n'
    rows = read(file(tmp_path, "a.jsonl", content))
    assert [(row.prompt, row.text, row.rating) for row in rows] == [
        ("Q: why?", " so ", 1.0), ("", "so", 2.0)]


def test_columns_that_are_not_used_are_named(tmp_path, capsys):
    read(file(tmp_path, "a.csv", "Text,Stars,id,Date\na,1,2,3\n"))
    assert capsys.readouterr().err == (
        f"note: {tmp_path / 'a.csv'}: columns that are not used: ['date', 'stars']\n")
    assert read(file(tmp_path, "b.csv", ",text,Rating,Votes\n0,a,1,2\n"))[0].votes == (1.0,)
    assert capsys.readouterr().err.endswith("b.csv: columns that are not used: ['votes']\n")
    assert read(file(tmp_path, "c.csv", "text,rating,label\na,,1\nb,2,\n"))[0].votes == (1.0,)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("record, unused", [
    ({"text": "a", "review": "b"}, ["review"]),
    ({"text": "a", "rating": 1, "sentiment": 2}, ["sentiment"]),
    ({"text": "a", "votes": [1], "rating": 2}, ["rating"]),
    ({"text": "a", "chosen": "b", "rejected": "c"}, ["text"]),
])
def test_a_known_column_that_another_stands_before_is_named_too(tmp_path, capsys, record, unused):
    read(file(tmp_path, "a.jsonl", json.dumps(record)))
    assert capsys.readouterr().err.endswith(f"a.jsonl: columns that are not used: {unused}\n")


def test_a_column_that_is_used_in_some_rows_and_not_in_others_is_counted(tmp_path, capsys):
    rows = read(file(tmp_path, "a.csv", "text,rating,label\na,,1\nb,2,3\n"))
    assert [row.votes for row in rows] == [(1.0,), (2.0,)]
    assert capsys.readouterr().err == (
        "note: 1 of 2 rows have two texts or two ratings, in columns of which the first is used; the first: "
        f"{tmp_path / 'a.csv'} line 3\n")


def test_rows_of_one_prompt_without_a_group_are_counted(tmp_path, capsys):
    lines = [{"prompt": "Q", "chosen": "a", "rejected": "b"}, {"prompt": "P", "chosen": "a", "rejected": "b"},
             {"prompt": "Q", "chosen": "c", "rejected": "d"}, {"prompt": "Q", "chosen": "e", "rejected": "f"}]
    for group in ({}, {"group": "one"}):
        name = "a.jsonl" if not group else "b.jsonl"
        read(file(tmp_path, name, "".join(json.dumps(line | group) + "\n" for line in lines)))
    assert capsys.readouterr().err == (
        "note: 3 of 4 rows share a prompt with others, so one held out may be learned from; rows of a "
        f"group stay together; the first: {tmp_path / 'a.jsonl'} line 1\n")
    rest = [lines[0] | {"group": "one"}, lines[2], lines[1]]
    read(file(tmp_path, "c.jsonl", "".join(json.dumps(line) + "\n" for line in rest)))
    assert capsys.readouterr().err.startswith("note: 1 of 3 rows share a prompt")


def test_a_text_is_taken_from_the_first_column_that_has_one(tmp_path):
    rows = read(file(tmp_path, "a.csv", "text,review,rating\n,good,1\nfine,,2\n,,3\n"))
    assert [(row.text, row.rating) for row in rows] == [("good", 1.0), ("fine", 2.0)]


RATED = [json.dumps({"text": f"film {i}", "rating": i % 3}) for i in range(30)]
GIVEN = [json.dumps({"chosen": f"yes {i}", "rejected": "no"}) for i in range(30)]


@pytest.mark.parametrize("lines, words", [
    ([*RATED[:20], GIVEN[0], *RATED[20:]],
     "line 21: the first of pairs of chosen and rejected (1) in a file that has rated texts (30), too"),
    ([GIVEN[0], *RATED[:2], *GIVEN[1:]],
     "line 2: the first of rated texts (2) in a file that has pairs of chosen and rejected (30), too"),
])
def test_rated_texts_beside_given_pairs_are_refused_with_the_rarer_kind_s_first_line(tmp_path, lines, words):
    message = complaint(file(tmp_path, "a.jsonl", "\n".join(lines)))
    assert message.startswith(f"{tmp_path / 'a.jsonl'} {words}") and "put them into two files" in message


def test_unrated_texts_may_stand_beside_either_kind(tmp_path, capsys):
    for kind in (RATED, GIVEN):
        lines = [*kind, '{"text": "plain"}', '{"text": "plain, too"}']
        assert len(read(file(tmp_path, "a.jsonl", "\n".join(lines)))) == 32
    assert capsys.readouterr().err == ""


def test_what_is_read_and_not_used_is_counted_with_the_place_of_the_first(tmp_path, capsys):
    path = file(tmp_path, "a.csv", "text,rating\na,1\n,3\nb,2\n ,1\na,3\na,\n\n")   # lines 3 and 5; 7
    assert [row.votes for row in read(path)] == [(1.0, 3.0), (2.0,)]
    assert capsys.readouterr().err.splitlines() == [
        f"note: 2 of 6 rows left out, without a text, or with one of chosen and rejected alone; "
        f"the first: {path} line 3",
        f"note: 1 of 6 rows left out, each repeats another and adds no rating; the first: {path} line 7"]
    path = file(tmp_path, "b.jsonl", "\n".join([
        GIVEN[0], GIVEN[0], '{"chosen": "a", "rejected": ""}', "",
        '{"chosen": "a", "rejected": "b", "rating": 4}']))
    assert len(read(path)) == 2
    found = [line.split(" rows ")[0] + line.split(";")[1] for line in capsys.readouterr().err.splitlines()]
    assert found == [f"note: 1 of {of} the first: {path} line {line}"
                     for of, line in ((4, 3), (4, 2), (2, 5))]   # of the rows, and of those that stay


def test_blank_lines_hold_nothing_that_could_be_missed(tmp_path, capsys):
    assert len(read(file(tmp_path, "a.txt", "\none\n \ntwo\n\n"))) == 2
    assert len(read(file(tmp_path, "a.jsonl", "\n" + RATED[0] + "\n \n"))) == 1
    assert capsys.readouterr().err == ""


def test_keys_that_are_not_used_may_be_there_twice(tmp_path):
    content = '{"text": "a", "x": 1, "X": 2, "meta": {"text": "b", "Text": "c"}}'
    assert [row.text for row in read(file(tmp_path, "a.jsonl", content))] == ["a"]


@pytest.mark.parametrize("name, content", [
    ("a.csv", "id,text\n1,first\n2,third\n1,second\n"),
    ("a.jsonl", '{"id": 1, "text": "a"}\n\n{"id": "1", "text": "b"}\n'),
    ("b.jsonl", '{"id": 1, "chosen": "a", "rejected": "b"}\n\n'
                '{"id": 1, "chosen": "a", "rejected": "c"}\n'),
])
def test_two_texts_with_one_id_are_refused(tmp_path, name, content):
    line = 4 if name == "a.csv" else 3
    with pytest.raises(UserError, match=f"{name} line {line}: id 1 was another text's before"):
        read(file(tmp_path, name, content))


@pytest.mark.parametrize("splits", [[""], ["train/", "test/"]])
def test_a_folder_of_reviews_is_read_with_signs_and_without_breaks(tmp_path, splits):
    for split in splits:
        file(tmp_path, f"{split}pos/1_9.txt", f"good<br /><br />{split}film")
        file(tmp_path, f"{split}neg/1_2.txt", f"bad {split}film")
        file(tmp_path, f"{split}unsup/1_0.txt", "neither")
    rows = read(tmp_path)
    expected = [(f"good  {split}film", 1.0) for split in splits]
    expected += [(f"bad {split}film", -1.0) for split in splits]
    assert [(row.text, row.rating) for row in rows] == expected


def test_a_table_of_reviews_as_kaggle_has_it_is_read_as_the_folder_is(tmp_path):
    rows = read(file(tmp_path, "IMDB Dataset.csv", 'review,sentiment\n"good, <br /><br />film",positive\n'
                                                   "bad film,negative\n"))
    assert [(row.text, row.rating) for row in rows] == [("good,   film", 1.0), ("bad film", -1.0)]
    assert read(file(tmp_path, "a.csv", "text,label\na <br /> b,pos\n"))[0].text == "a <br /> b"


def test_a_folder_gives_the_first_short_reviews_of_each_sign(tmp_path, monkeypatch, capsys):
    assert own.REVIEWS == 5000   # of each sign: 10,000
    monkeypatch.setattr(own, "REVIEWS", 2)
    for sign in ("pos", "neg"):
        for number, length in enumerate([1001, 1000, 10, 11]):
            file(tmp_path, f"{sign}/{number}.txt", sign[0] * length)
    sizes = [(len(row.text), row.rating) for row in read(tmp_path)]
    assert sizes == [(1000, 1), (10, 1), (1000, -1), (10, -1)]
    assert [line.split(": ")[-1] for line in capsys.readouterr().err.splitlines()] == [
        "more than 1,000 characters", "2 are used"] * 2


def test_what_follows_a_prompt_may_be_called_its_response(tmp_path):
    row, = read(file(tmp_path, "a.csv", "prompt,response,rating\nWhy?,So.,2\n"))
    assert (row.prompt, row.text, row.votes) == ("Why?", "So.", (2.0,))


BAD = [
    ("a.txt", "", "a.txt: empty"),
    ("a.txt", " \n\n", "without a usable row"),
    ("a.csv", "text,label\n", "without a usable row"),
    ("a.jsonl", '{"text": null}', "without a usable row"),
    ("a.txt", b"good\nb\xe4d\n", "a.txt line 2: not UTF-8"),
    ("a.txt", b"\x00\x01\x02", "binary"),
    ("a.txt", "good".encode("utf-16"), "UTF-16"),
    ("a.pdf", "text", ".txt, .csv, .tsv, .jsonl"),
    ("noend", "text", "unknown kind of file"),
    ("a.csv", "body,stars\ngood,4\n", "a.csv line 2: no text; found body, stars; needed text or"),
    ("a.jsonl", '{"text": "a"}\n{"chosen": "a"}', "line 2: no text; found chosen"),
    ("a.csv", "text;rating\ngood;4\n", "found text;rating; needed text or review or sentence or content or "
                                       "response, or chosen and rejected; put commas between cells"),
    ("a.jsonl", '{"chosen": [{"role": "user"}], "rejected": "b"}',
     "chosen is not a text but [{'role': 'user'}]; join messages to one text; all but the last are the "
     "prompt"),
    ("a.csv", "text,rating\na,1\nb,great\n", "a.csv line 3: rating 'great' is no finite number"),
    ("a.csv", "text,rating\na,inf\n", "line 2: rating 'inf'"),
    ("a.jsonl", '{"text": "a", "rating": NaN}', "line 1: rating nan"),
    ("a.jsonl", '{"text": "a", "rating": 1' + 400 * "0" + "}", "no finite number"),
    ("a.jsonl", '{"text": "a", "rating": {}}', "line 1: rating {}"),
    ("a.jsonl", '{"text": "a", "votes": [1, "x"]}', "line 1: rating 'x'"),
    ("a.jsonl", '{"text": "a", "votes": 3}', "votes are not a list"),
    ("a.jsonl", '{"text": "a"}\n{"text": ', "a.jsonl line 2: bad JSON"),
    ("a.jsonl", "[" * 100_000, "line 1: bad JSON"),
    ("a.jsonl", '["a"]', "line 1: not a JSON object"),
    ("a.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}', "line 2: 2 columns are called text; rename one"),
    ("a.jsonl", '{"Text": "a", "text": "b"}', "line 1: 2 columns are called text"),
    ("a.jsonl", '{"text": "a", "votes": [1], "votes ": [2]}', "line 1: 2 columns are called votes"),
    ("a.csv", "Text,text\na,b\n", "a.csv: 2 columns are called text"),
    ("a.csv", "text,rating\na,1_000\n", "a.csv line 2: rating '1_000' is no finite number"),
    ("a.jsonl", '{"text": "a", "votes": [1, "2_0"]}', "line 1: rating '2_0' is no finite number"),
    ("a.jsonl", '{"text": ["a"]}', "line 1: text is not a text"),
    ("a.jsonl", '{"text": "\\ud800"}', "line 1: text is not a text"),
    ("a.csv", "text,rating\ngood, not bad,1\n", "a.csv line 2: more cells than the header"),
    ("a.csv", 'text\n"good\nbad\n', "look for a missing quote"),
    ("a.csv", "text\n" + "a" * 200_000, "a.csv line 2: field larger than field limit"),
]


@pytest.mark.parametrize("name, content, part", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_named_with_its_line_and_a_remedy(tmp_path, name, content, part):
    message = complaint(file(tmp_path, name, content))
    assert message.startswith(str(tmp_path / name)) and part in message


def test_a_missing_path_and_a_folder_without_signs_are_named(tmp_path):
    assert "nowhere.txt: no such file" in complaint(tmp_path / "nowhere.txt")
    assert "verses, or toy" in complaint(tmp_path / "movie")
    (tmp_path / "pos").mkdir()
    assert "without pos/ and neg/" in complaint(tmp_path)
    (tmp_path / "neg").mkdir()
    assert "without a usable row" in complaint(tmp_path)


def test_a_file_without_permission_is_an_error_in_one_line(tmp_path, monkeypatch):
    def refuse(path, limit):
        raise PermissionError(13, "Permission denied", str(path))

    path = file(tmp_path, "a.txt", "text")
    monkeypatch.setattr(own, "read_regular", refuse)  # chmod would not stop an administrator
    assert "cannot be read ([Errno 13] Permission denied" in complaint(path)


def test_reading_leaves_the_field_limit_of_csv_as_it_was(tmp_path):
    before = csv.field_size_limit()
    read(file(tmp_path, "a.csv", "text\ngood\n"))
    assert csv.field_size_limit() == before


def test_a_table_s_empty_columns_are_none(tmp_path):
    header = "text,label,chosen,rejected\n"
    rated = "".join(f"text {i},{i % 5},,\n" for i in range(6))
    pairs = "".join(f",,good {i},bad {i}\n" for i in range(3))
    rows = read(file(tmp_path, "rated.csv", header + rated))
    found = [(row.text, row.rating, row.rejected) for row in rows[:2]]
    assert found == [("text 0", 0, ""), ("text 1", 1, "")]
    assert len(rows) == 6
    assert len(read(file(tmp_path, "pairs.csv", header + pairs))) == 3
    for name, content in (("both.csv", header + rated + pairs),
                          ("null.jsonl", '{"text": "a", "label": 1, "chosen": null}\n'
                                         '{"chosen": "b", "rejected": "c"}\n')):
        with pytest.raises(UserError, match="the first of .*; one kind is learned from at a time"):
            read(file(tmp_path, name, content))
