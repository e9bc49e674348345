"""What was read and cannot be used is counted, with the place of the first."""

import pytest

from minippo.corpora.rows import Row
from minippo.data import Comparisons, DataError, Prompts, encode
from minippo.run import rows
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["no merges: each byte is a token"], 257)
ROOM = 8   # the end token, a prompt of 6 letters, one token of a response


def some(count, *long, letters=7):
    """So many rows, each with a line; those of the numbers given have a prompt of 7 letters, others of 6."""
    return [Row(str(i), "text", (float(i),), "q" * (letters if i in long else 6), where=f"f.jsonl line {i}")
            for i in range(count)]


def test_rows_whose_prompt_leaves_no_room_for_a_response_are_left_out_counted_and_named(capsys):
    parts = {"reward": some(50), "judge": some(50, *range(50)), "prompts": some(50, 9, 10)}
    kept = rows.fitting(parts, TOKENIZER, reward=ROOM, prompts=ROOM)   # nothing is asked of the judge's
    assert kept == {"reward": parts["reward"], "prompts": some(9) + some(50)[11:]}
    assert capsys.readouterr().err == (   # 9 before 10, which begins with a smaller letter
        "note: 2 of 100 rows left out, their prompts are too long for the model; the first: f.jsonl line 9\n")


def test_what_is_kept_is_what_a_stage_can_encode_and_no_more_is_left_out():
    part = some(40, 3)
    with pytest.raises(DataError, match="'qqqqqqq' has 8 tokens, and room is for 7"):
        encode(part, TOKENIZER, ROOM)
    kept = rows.fitting({"prompts": part}, TOKENIZER, prompts=ROOM)["prompts"]
    assert len(kept) == 39 and all(len(response) == 1 for _, response in encode(kept, TOKENIZER, ROOM))
    assert all(len(query) > 1 for query, _ in Prompts(kept, TOKENIZER, 1, 2, ROOM).examples)


def test_rows_without_a_long_prompt_pass_in_silence(capsys):
    parts = {"reward": [*some(5), Row("5", "a long text without a prompt")], "test": []}
    assert rows.fitting(parts, TOKENIZER, reward=ROOM, test=0) == parts
    assert rows.fitting({"test": [Row("0", "a")]}, TOKENIZER, test=0)["test"]   # Prompts says what is wrong
    assert capsys.readouterr().err == ""


def test_each_part_has_a_room_of_its_own(capsys):
    parts = {"reward": some(30, 3), "prompts": some(30, 4)}
    kept = rows.fitting(parts, TOKENIZER, reward=ROOM + 1, prompts=ROOM)
    assert (len(kept["reward"]), len(kept["prompts"])) == (30, 29)
    assert "1 of 60 rows" in capsys.readouterr().err


def test_a_tenth_may_be_left_out_and_more_is_refused_with_the_same_place(capsys):
    def fitting(*long):
        return rows.fitting({"reward": some(70, *long), "test": some(30)}, TOKENIZER, reward=ROOM, test=ROOM)
    assert len(fitting(*range(2, 12))["reward"]) == 60
    assert "10 of 100 rows" in capsys.readouterr().err
    with pytest.raises(UserError) as caught:
        fitting(*range(2, 13))
    for words in ("f.jsonl line 2 has a prompt of 8 tokens, and room is for 7", "11 rows of 100",
                  "shorten", "--context"):
        assert words in str(caught.value)
    assert capsys.readouterr().err == ""


def test_a_part_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(UserError, match="one of 1 rows of 101"):
        rows.fitting({"reward": some(100), "test": some(1, 0)}, TOKENIZER, reward=ROOM, test=ROOM)


def test_rows_that_no_file_holds_are_named_by_their_beginnings_and_all_counted(capsys):
    row = Row("1", "text", prompt="a prompt of a program")
    rows.fitting({"reward": [row, row, *some(30)]}, TOKENIZER, reward=ROOM)
    assert "2 of 32 rows" in (err := capsys.readouterr().err) and "the first: 'a prompt of a program'" in err


def test_unrated_rows_pairs_that_are_equal_in_the_context_and_what_is_cut_off_are_counted(capsys):
    pairs = [Row(str(i), "yes", prompt="q", rejected="no", where=f"f line {i}") for i in range(3)]
    equal = Row("3", "abcdefgh", rejected="abcdefgi", where="f line 3")   # END and 7 letters fit
    unrated = [Row(str(i), "text", where=f"f line {i}") for i in (10, 9)]
    parts = {"reward": [*pairs[:2], *unrated], "test": [pairs[2], equal]}
    made = [Comparisons(part, TOKENIZER, ROOM) for part in parts.values()]
    rows.note_unused(parts, TOKENIZER.end, ROOM, *made)
    assert capsys.readouterr().err.splitlines() == [
        "note: 2 of 6 rows not used here, they have no rating or label; the first: f line 9",
        "note: 1 of 6 rows left out, their chosen and rejected are equal in what fits into --context; "
        "the first: f line 3"]
    rated = some(20)
    rows.note_unused({"reward": rated}, TOKENIZER.end, ROOM, Comparisons(rated, TOKENIZER, ROOM))
    rows.note_unused({"reward": pairs}, TOKENIZER.end, ROOM, Comparisons(pairs, TOKENIZER, ROOM))
    assert capsys.readouterr().err == (   # nothing of the pairs
        "note: 20 of 20 texts do not fit into --context 8 tokens and are cut off there\n")
