"""Models on the same prompts: the win rate by hand, and the command on a small world."""

import json
import sys

import pytest

from minippo.run.commands import COMMANDS
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.stage_3 import of_stage_3
from minippo.tools import compare
from minippo.tools.compare import Config, as_table, cell, html, main, won
from minippo.tools.shared.contest import Contest

# ---------------------------------------------------------------- by hand

def test_the_share_won_counts_ties_half():
    # above, equal, below, above
    assert won([2.0, 1.0, 0.0, 5.0], [1.0, 1.0, 1.0, 4.0])["share"] == 2.5 / 4
    assert won([0.0], [1.0])["share"] == 0


@pytest.mark.parametrize("wins, count, low, high", [
    (8, 10, 0.490, 0.943),      # z = 1.96: middle (0.8 + 0.19207) / 1.38415, half 0.31358 / 1.38415
    (0, 10, 0.0, 0.278),        # z^2 / (n + z^2) = 3.8415 / 13.8415
    (10, 10, 0.722, 1.0),       # and from the other side
    (50, 100, 0.404, 0.596),
])
def test_the_interval_is_wilson_s(wins, count, low, high):
    found = won([1.0] * wins + [0.0] * (count - wins), [0.5] * count)
    assert found["share"] == wins / count
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=6e-4)


def test_the_table_has_a_column_for_every_figure_that_a_model_has():
    rate = {"share": 0.25, "low": 0.1, "high": 0.456}
    figures = {"a": {"score": 0.5, "kl": 0.0}, "b": {"kl": 1.25, "score": -1.0, "n": 7, "won_by_score": rate}}
    assert as_table(figures) == (["", "score", "won by score", "KL"],
                                 [["a", "+0.50", "", "0.00"], ["b", "-1.00", "25% (10 to 46)", "1.25"]])
    assert cell(None, ".2f") == ""


def test_a_response_that_is_html_is_text_on_the_page():
    response = {"model": "m", "score": 1.0, "response": "</td><script>alert(1)</script>"}
    sample = {"prompt": "<b>", "responses": [response]}
    text = html(["", "KL"], [["<i>", "1"]], ["a & b"], [sample])
    assert "<script>alert" not in text and "&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;b&gt; ..." in text and "&lt;i&gt;" in text and "a &amp; b" in text


# ---------------------------------------------------------------- the command

def config_of(*models, **flags):
    return Config(**{"models": models, "prompts": 8, "best_of": "2", "samples": 1, "device": "cpu",
                     "precision": "fp32"} | flags)


def copied(folder, other):
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())


def about(folder, **settings):
    """Changes the settings in a folder's config.json."""
    path = folder / "config.json"
    found = json.loads(path.read_text())
    found["settings"] |= settings
    path.write_text(json.dumps(found))


def test_policy_reference_and_best_of_n_answer_the_same_prompts(place, capsys):
    main(config_of("ppo", "pretrain", best_of="4,2", samples=8, seed=1, json="out.json", html="out.html"))
    out, err = capsys.readouterr()
    found = json.loads((place / "out.json").read_text())
    assert list(found["models"]) == ["ppo", "pretrain", "best of 2, positive", "best of 4, positive"]
    assert (found["reference"], found["reward"], found["data"]) == ("pretrain", "reward", "data.csv")
    figures = found["models"]
    assert figures["pretrain"]["kl"] == 0 and "won_by_score" not in figures["pretrain"]
    assert figures["best of 2, positive"]["kl"] == pytest.approx(0.193147)    # ln 2 - 1/2
    assert figures["best of 4, positive"]["kl"] == pytest.approx(0.636294)    # ln 4 - 3/4
    rates = [figures[name][way] for name in ("ppo", "best of 4, positive")
             for way in ("won_by_score", "won_by_judge")]
    assert all(0 <= x["low"] <= x["share"] <= x["high"] <= 1 for x in rates)
    scores = [{x["model"]: x["score"] for x in sample["responses"]} for sample in found["samples"]]
    for name in ("ppo", "best of 4, positive"):   # the first answers as the reference does: all ties
        won = sum((each[name] > each["pretrain"]) + (each[name] == each["pretrain"]) / 2 for each in scores)
        assert figures[name]["won_by_score"]["share"] == won / 8
    assert won / 8 != 0.5   # against itself it would be
    lines = out.splitlines()
    assert lines[0].endswith("  length  ended")
    assert [line.split("  ")[0] for line in lines[1:5]] == list(figures)
    assert " held-out texts of data.csv; reference pretrain, reward model reward. The judge" in out
    sample = found["samples"][0]
    assert len(scores) == 8 and f"{sample['prompt']} ..." in lines and len(sample["responses"]) == 4
    assert "8 responses" in err and "32 responses" in err
    assert (place / "out.html").read_text().count("<table>") == 9


def test_best_of_n_gets_the_higher_scores_the_larger_n_is_and_the_lower_towards_negative(place):
    def scores(contest):
        figures, _, _ = compare.measured(contest, [1, 4, 16])
        return [figures[f"best of {n}, {contest.settings.target}"]["score"] for n in (1, 4, 16)]
    about(place / "ppo", missing_end_score=0.0)   # what was cut off is paid its score
    low, middle, high = scores(Contest(config_of("ppo", prompts=32)))
    assert low < middle < high
    about(place / "ppo", target="negative")
    high, middle, low = scores(Contest(config_of("ppo", prompts=32)))
    assert low < middle < high


def test_a_model_s_figures_hang_neither_on_the_others_nor_on_their_order(place):
    copied(place / "ppo", place / "twin"), copied(place / "ppo", place / "prompt")
    kept = ("ppo", "pretrain", "best of 2, positive")
    alone, before, after = (compare.measured(Contest(config_of(*models)), [2])[0]
                            for models in (["ppo"], ["ppo", "twin"], ["twin", "prompt", "pretrain", "ppo"]))
    assert alone == {name: before[name] for name in kept} == {name: after[name] for name in kept}
    assert after["twin"] == after["ppo"] == after["prompt"]   # the same model, the same draws


def test_a_model_may_be_called_prompt(place, capsys):
    copied(place / "ppo", place / "prompt")
    main(config_of("prompt", "pretrain", best_of="0", samples=1))
    assert sum(line.startswith("    prompt ") for line in capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("flags, message", [
    ({"html": "x", "json": "x"}, "--html and --json are both x"),
    ({"best_of": "2,1025"}, "--best-of 2,1025: at most 1024"),
])
def test_what_cannot_be_is_refused_before_anything_is_loaded(flags, message):
    with pytest.raises(UserError, match=message):
        main(config_of("nowhere", **flags))


def test_a_model_against_itself_has_no_kl_and_the_same_draws(place):
    copied(place / "pretrain", place / "twin")
    figures, texts, _ = compare.measured(Contest(config_of("pretrain", "twin", reward="reward")), [])
    assert figures["twin"]["kl"] == 0 and texts["twin"] == texts["pretrain"]


def test_without_ratings_there_is_no_judge(place, capsys):
    lines = (place / "data.csv").read_text().splitlines()
    (place / "unrated.txt").write_text("\n".join(line.rsplit(",", 1)[0].strip('"') for line in lines[1:]))
    main(config_of("ppo", data="unrated.txt"))
    out = capsys.readouterr().out
    assert "judge" not in out and "won by score" in out


def test_reference_and_reward_model_are_those_the_first_policy_began_with(place):
    contest = Contest(config_of("ppo"))
    assert (contest.reference, contest.reward) == ("pretrain", "reward")
    assert list(contest.models) == ["ppo", "pretrain"]
    assert (contest.settings.response_length, contest.settings.rollout_size) == (4, 4)   # the world's
    assert (contest.settings.temperature, contest.settings.shortest_prompt) == (0.8, 2)   # the defaults
    assert {model.temperature for model in contest.models.values()} == {0.8}
    assert len(contest.query) == 8


def test_a_policy_may_be_the_reference(place):
    contest = Contest(config_of("pretrain", "ppo", reference="./ppo"))
    assert contest.reference == "ppo" and list(contest.models) == ["pretrain", "ppo"]
    figures, _, _ = compare.measured(contest, [])
    assert figures["ppo"]["kl"] == 0


def test_another_temperature_is_noted(place, capsys):
    copied(place / "ppo", place / "warm")
    about(place / "warm", temperature=1.5)
    contest = Contest(config_of("ppo", "warm"))
    assert contest.models["warm"].temperature == 1.5
    assert capsys.readouterr().err == "note: warm writes at temperature 1.5, models of stage 1 at 0.8\n"


@pytest.mark.parametrize("damage", [
    {"response_length": 0}, {"response_length": "24"}, {"shortest_prompt": 9}, {"shortest_prompt": 0},
    {"temperature": 0.0}, {"target": "happy"}, {"missing_end_score": None}, {"microbatch_size": -1},
])
def test_settings_that_stage_3_does_not_write_are_refused(damage):
    with pytest.raises(UserError, match=r"^runs/x/config.json: no settings of finetune_ppo.py \(.*; run the"):
        of_stage_3("runs/x", damage)


@pytest.mark.parametrize("flags, words", [
    ("reward ppo", "reward: holds a reward model, which is no model to compare|stage 1 or 3"),
    ("ppo --reference reward", "reward: holds a reward model"),
    ("ppo --reward pretrain", "pretrain: holds the model of pretrain.py|train_reward.py"),
    ("pretrain", "--reward is needed|no model of stage 3|name its folder"),
    ("ppo ./ppo", "named twice"),
    ("ppo nowhere", "nowhere: no trained model here"),
    ("ppo stopped", "stopped: a run that was stopped"),
    ("ppo --best-of many", "'many': give numbers"),
    ("ppo --prompts 1", "--prompts|from 2 to 2048"),
    ("ppo --html no/such/page.html", "no/such/page.html: there is no such folder"),
    ("ppo --json ppo", "--json ppo is a folder; name a file"),
    ("ppo --data nowhere.csv", "nowhere.csv"),
])
def test_a_mistake_is_one_line_and_nothing_is_written(place, capsys, flags, words):
    with pytest.raises(SystemExit) as left:
        launch(compare.main, Config, "", [*flags.split(), "--device", "cpu", *([] if "--prompts" in flags else
                                                                             ["--prompts", "4"])])
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1)
    assert all(word in err for word in words.split("|")), err


@pytest.mark.parametrize("name, flag", [("model", "--reference"), ("reward", "--reward")])
def test_a_policy_whose_beginning_is_not_here_says_which_flag_names_it(place, name, flag):
    about(place / "ppo", **{name: "gone"})
    with pytest.raises(UserError, match=rf"{flag} is needed \(ppo began with gone, which is not here\)"):
        Contest(config_of("ppo"))


def test_a_model_of_another_tokenizer_is_refused(place, monkeypatch):
    import pretrain
    from minippo.run.flags import parse
    from tests.robustness.world import arguments_of
    words = [*arguments_of("pretrain", "strange"), "--vocab-size", "280"]
    pretrain.main(parse(pretrain.Config, "", words))
    with pytest.raises(UserError, match="strange was trained with another tokenizer than pretrain"):
        Contest(config_of("ppo", "strange", reference="pretrain"))


def test_texts_that_would_command_a_terminal_are_shown_in_letters(place, capsys, monkeypatch):
    evil = "\x1b]0;evil\x07\x9b2J\u202e"
    # what the reward model's and the judge's figures are of stays as it was: only what is shown changes
    right = compare.measured

    def measured(contest, counts):
        figures, texts, scores = right(contest, counts)
        return figures, {name: [evil] * len(found) for name, found in texts.items()}, scores
    monkeypatch.setattr(compare, "measured", measured)
    launch(compare.main, Config, "", ["ppo", "--prompts", "4", "--best-of", "0", "--samples", "1",
                                      "--device", "cpu", "--json", "out.json"])
    out = capsys.readouterr().out
    assert out.count(r"\x1b]0;evil\x07\x9b2J\u202e") == 2 and not set(out) & set("\x1b\x07\x9b\u202e")
    sample, = json.loads((place / "out.json").read_text())["samples"]
    assert {x["response"] for x in sample["responses"]} == {evil}


def test_compare_is_a_command():
    assert "compare" in COMMANDS and sys.modules["minippo.tools.compare"].__doc__
