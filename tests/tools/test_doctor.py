"""minippo doctor: each finding on a record that shows it, and on its near miss; records that are none."""

import json
import os

import pytest

from minippo.run import files
from minippo.run.commands import COMMANDS
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.files import hold
from minippo.tools import doctor
from minippo.tools.doctor import Config, diagnose, examine, main, see, with_values
from minippo.tools.findings.causes import CAUSES
from minippo.tools.findings.finding import ANY_STAGE, STAGE_1, STAGE_2, Seen
from minippo.tools.findings.symptoms import SYMPTOMS
from tests.robustness.posix import posix

SHORT = {
    "score": "objective/scores", "spread": "objective/scores_std", "paid": "objective/paid",
    "kl": "objective/kl", "beta": "objective/kl_coef", "total": "objective/rlhf_reward",
    "explained": "ppo/val/var_explained", "length": "tokens/responses_len_mean", "ended": "tokens/ended",
    "entropy": "ppo/policy/entropy", "clipped": "ppo/policy/clipfrac", "k2": "ppo/policy/approxkl",
    "ratio": "ppo/policy/ratio",
}


def ppo(n=20, start=None, **changed):
    """n rows of a healthy run of stage 3, some columns changed: a number, or numbers in turn.

    The score rises by 0.1 an iteration, KL by 0.2 nats, so score - 0.2 KL by 0.06; k2 falls as the square
    of the learning rate. start: what row 0 has instead, by its short name.
    """
    rows = []
    for i in range(n):
        row = {"score": 0.1 * i, "spread": 1.0, "kl": 0.2 * i, "beta": 0.2, "explained": 0.01 * i,
               "length": 10.4 + 0.2 * (i % 2), "ended": 0.95, "entropy": 3.0 - 0.02 * i,
               "clipped": 0.1, "k2": 0.02 * (1 - i / n) ** 2, "ratio": 1.001 - 0.002 * (i % 2)}
        row |= {key: x[i % len(x)] if isinstance(x, list) else x for key, x in changed.items()}
        row |= (start or {}) if i == 0 else {}
        row.setdefault("paid", row["score"])
        row.setdefault("total", row["paid"] - row["beta"] * row["kl"])
        rows.append({"iteration": i, **{SHORT[key]: x for key, x in row.items()}})
    return rows


def rewards(*accuracies):
    return [{"iteration": i, "loss/reward": 0.6, "loss/train": 3.0, "accuracy/train": x}
            for i, x in enumerate(accuracies)]


def losses(*numbers):
    return [{"iteration": i, "loss/train": x, "grad_norm": 1.0} for i, x in enumerate(numbers)]


def compared(score=2.0, judged=0.9, distinct=0.6, accuracy=0.75):
    """comparison.json of a policy with these figures, and a reference with 0, 0.5 and 0.7."""
    return {"reference": {"score": 0.0, "judged_positive": 0.5, "distinct_2": 0.7},
            "policy": {"score": score, "judged_positive": judged, "distinct_2": distinct},
            "judge_accuracy": accuracy}


def measured(accuracy, pairs=900, texts=900):
    """calibration.json of a reward model."""
    return {"accuracy": accuracy, "pairs": pairs, "texts": texts}


def names(rows, figures=None, **state):
    return [finding.name for finding, _ in diagnose(Seen(rows, figures or {}, **state))]


# name: the record that shows it, and one that just does not
CASES = {
    "not finite": (ppo(ratio=[1.0] * 19 + [None]), ppo()),
    # 0.01 nats, a hundred times what rounding leaves on 100 tokens
    "KL not 0 at the start": (ppo(start={"kl": -0.011}), ppo(start={"kl": -0.009})),
    # rows 0 to 4 have a KL of 0.4 nats on average, where 10 deviations are 10
    "KL outweighs the score": (ppo(beta=26.0), ppo(beta=24.0, total=[float(i) for i in range(20)])),
    # the second half: mean -0.04, error 0.025 / sqrt(10) = 0.008; then the same mean, and error 0.1
    "negative KL": (ppo(kl=[0.0, -0.06, -0.04, -0.06, -0.04]), ppo(kl=[0.0, -0.35, 0.25, -0.35, 0.25])),
    # row i: 0.1 i + 0.2 0.2 i = 0.14 i, where 0.06 i is right
    "rewards do not add up": (ppo(total=[0.14 * i for i in range(20)]),
                              ppo(total=[0.06 * i for i in range(20)])),
    "pads are counted": (ppo(length=[16.0, 17.0]), ppo(length=[16.0] * 19 + [16.5])),
    # k2 is 0.007 on average: a tenth of it is 0.0007
    "reference moves along": (ppo(kl=0.0), ppo(kl=[0.0, 0.001])),
    # k2 of the last row 0.005, more than a tenth of what it is early (0.016): ratios 1.04, then 1
    "ratio to the reference": (ppo(k2=[0.02] * 19 + [0.005], ratio=[1.04, 1.05]),
                               ppo(k2=[0.02] * 19 + [0.0015], ratio=[1.04, 1.05])),
    "ratio does not begin at 1": (ppo(k2=[0.02] * 19 + [0.005]), ppo(k2=[0.005] * 19 + [0.0009])),
    "constant score": (ppo(spread=0.009), ppo(start={"spread": 0.4})),
    "score out of scale": (ppo(start={"spread": 3.1}), ppo(start={"spread": 2.9})),
    # the mean of the first five rows
    "steps too large": (ppo(k2=[1.3, 0.4, 0.4, 0.4, 0.4] + [0.0] * 15),
                        ppo(k2=[1.0, 0.3, 0.3, 0.3, 0.3] + [0.0] * 15)),
    "nothing moves": (ppo(k2=9e-7, clipped=0.0), ppo(k2=2e-6, clipped=0.0)),
    # a to and fro of x makes |a - 2 b + c| / sqrt(6) = 0.816 x: for 0.52 times sqrt(pi/2) 0.532, for 0.50
    # 0.512; the limit over 18 of them is 0.354 (1 + 2 / 4.24) = 0.520
    "batch too small": (ppo(score=[0.1 * i + 0.52 * (i % 2) for i in range(20)]),
                        ppo(score=[0.1 * i + 0.50 * (i % 2) for i in range(20)])),
    # from 0 to the mean of rows 15 to 19: by 17 * 0.02 = 0.34; then by 0.238
    "objective falls": (ppo(total=[-0.02 * i for i in range(20)], beta=0.0),
                        ppo(total=[-0.014 * i for i in range(20)], beta=0.0)),
    "all ends at once": (ppo(length=[10.0] * 10 + [1.5] * 10, kl=0.5, start={"kl": 0.0}),
                         ppo(length=[10.0] * 10 + [2.1] * 10, kl=0.5, start={"kl": 0.0})),
    "nothing ends": (ppo(ended=0.09), ppo(ended=0.11)),
    # nats a token: 31 / 10 and 29 / 10, where the entropy was 3
    "KL runs away": (ppo(kl=31.0, beta=0.0, start={"kl": 0.0}, length=[10.0] * 19 + [10.5]),
                     ppo(kl=29.0, beta=0.0, start={"kl": 0.0}, length=[10.0] * 19 + [10.5])),
    "entropy collapse": (ppo(entropy=0.59, start={"entropy": 3.0}),
                         ppo(entropy=0.61, start={"entropy": 3.0})),
    "clipped everywhere": (ppo(clipped=0.51), ppo(clipped=0.49)),
    # early: 0.04 (1 - i/20)^2 over rows 0 to 4 is 0.0326 on average; half of that is below 0.02
    "never clipped": (ppo(clipped=0.0, k2=[0.04 * (1 - i / 20) ** 2 for i in range(20)]), ppo(clipped=0.0)),
    "dead critic": (ppo(explained=0.0), ppo(explained=0.001)),
    "cut off": (ppo(ended=0.49, paid=[0.1 * i - 0.3 for i in range(20)]),
                ppo(ended=0.51, paid=[0.1 * i - 0.3 for i in range(20)])),
    # by 17 * 0.005 = 0.085, then by 17 * 0.007 = 0.119, where a tenth is 0.1
    "nothing learned": (ppo(score=[0.005 * i for i in range(20)], beta=0.0),
                        ppo(score=[0.007 * i for i in range(20)], beta=0.0)),
    # the last of 12: 0.54 on average
    "no better than chance": (rewards(*[0.54] * 12), rewards(*[0.54] * 9 + [0.56] * 3)),
    "loss jumps": (losses(6.0, 7.3, *[2.0] * 12), losses(6.0, 7.1, *[2.0] * 12)),
    "loss does not fall": (losses(6.0, *[5.8] * 12), losses(6.0, *[5.6] * 12)),
}
FROM_FIGURES = {
    # the judge's share falls, or rises by less than 0.06 of the 0.5 it could
    "reward hacked": (compared(judged=0.55), compared(judged=0.57)),
    "texts all alike": (compared(distinct=0.34), compared(distinct=0.36)),
}


def test_where_nothing_ends_it_is_not_said_once_more_that_much_is_cut_off():
    paid = [0.1 * i - 0.3 for i in range(20)]
    assert "cut off" not in names(ppo(ended=0.09, paid=paid))
    assert "cut off" in names(ppo(ended=0.11, paid=paid))


def test_every_finding_has_a_case():
    names = [finding.name for finding in ANY_STAGE + CAUSES + SYMPTOMS + STAGE_1 + STAGE_2]
    assert sorted(names) == sorted([*CASES, *FROM_FIGURES, "broke off"])


@pytest.mark.parametrize("name", CASES)
def test_a_finding_is_the_first_on_its_record_and_silent_on_a_near_miss(name):
    sick, healthy = CASES[name]
    assert names(sick)[0] == name
    assert names(healthy) == []


@pytest.mark.parametrize("name", FROM_FIGURES)
def test_a_finding_of_the_comparison(name):
    sick, healthy = FROM_FIGURES[name]
    assert names(ppo(), sick) == [name] and names(ppo(), healthy) == []


@pytest.mark.parametrize("figures, hacked", [
    (compared(score=-2.0, judged=0.1), False),     # --target negative, and the judge agrees
    (compared(score=-2.0, judged=0.6), True),      # the score fell, the judge is the more pleased
    (compared(score=0.4, judged=0.3), False),      # the score hardly moved
    (compared(judged=0.3, accuracy=0.55), False),  # a judge that knows nothing
    ({"reference": {"score": 0.0}, "policy": {"score": 2.0}}, False)],   # no ratings, so no judge
    ids=["negative", "negative, hacked", "a small step", "no judge to speak of", "no judge"])
def test_the_judge_counts_in_the_direction_that_the_score_went(figures, hacked):
    assert names(ppo(), figures) == ["reward hacked"] * hacked


def test_a_healthy_run_of_each_stage_is_silent():
    assert names(ppo(), compared()) == []
    assert names(rewards(*[0.5, 0.6, 0.7, 0.8] * 3)) == []
    assert names(losses(*[6.0, 4.0, 3.0] + [2.0] * 9)) == []


def test_what_is_learned_within_the_first_iterations_is_learned():
    quick = [0.0, 0.5, 1.0, 1.5, 2.0] + [2.0] * 15
    assert names(ppo(score=quick)) == []


@pytest.mark.parametrize("accuracy, pairs, texts, found", [
    (0.549, 20_000, 9000, True), (0.551, 20_000, 9000, False),   # an error is 0.005: a twentieth decides
    (0.624, 16, 900, True), (0.626, 16, 900, False),             # here it is 0.125
    (0.624, 20_000, 16, True), (0.626, 20_000, 16, False),       # 20,000 pairs of 16 texts are as few
    (1.0, 1, 1, False)],                                         # one pair, and right: no fault of it
    ids=["a twentieth", "more", "an error", "more than it", "few texts", "more, of few texts", "one pair"])
def test_held_out_accuracy_decides_as_soon_as_it_is_there(accuracy, pairs, texts, found):
    by_heart, short = rewards(*[1.0] * 12), rewards(0.5, 0.5)
    for rows in (by_heart, short, rewards(*[0.5] * 12)):
        assert names(rows, held_out=measured(accuracy, pairs, texts)) == ["no better than chance"] * found
    assert names(by_heart) == names(short) == []   # not measured yet


@pytest.mark.parametrize("to_and_fro, n, found", [
    # over n - 2 = 8 the limit is 0.354 (1 + 2 / 2.83) = 0.604; 1.023 x is 0.614, then 0.593
    (0.60, 10, True), (0.58, 10, False), (0.60, 9, False)], ids=["10 rows", "below the limit", "9 rows"])
def test_the_fewer_rows_the_more_their_means_have_to_scatter(to_and_fro, n, found):
    rows = ppo(n, score=[to_and_fro * (i % 2) for i in range(n)], beta=0.0)
    assert ("batch too small" in names(rows)) == found


def test_a_score_that_rises_evenly_and_fast_is_no_small_batch():
    assert names(ppo(score=[0.8 * i for i in range(20)], start={"score": 0.0})) == []


def test_large_steps_of_learning_are_no_small_batch():
    quick = [0.0, 1.0, 2.0, 3.0] + [3.0, 3.02] * 8
    assert names(ppo(score=quick)) == []
    assert names(ppo(score=quick, spread=[1.0] * 6 + [0.0] * 14, beta=0.0)) == []   # and all the same then


@pytest.mark.parametrize("key", ["memory/peak_mb", "time/tokens_per_second"])
def test_what_the_system_does_not_say_is_no_finding(key):
    assert names([row | {key: None} for row in ppo()]) == []
    assert names([row | {"ppo/grad_norm": None} for row in ppo()]) == ["not finite"]


@pytest.mark.parametrize("rows", [ppo(20), rewards(*[0.8] * 20), losses(6.0, *[2.0] * 19)],
                         ids=["ppo", "reward", "pretrain"])
def test_a_column_of_nothing_but_nan_is_told_and_hides_no_other(rows):
    for key in set(rows[0]) - {"iteration"}:
        found = [row | {key: None} for row in rows]
        assert names(found)[0] == "not finite" and names(found[:1])[0] == "not finite"
    nothing = [{key: x if key == "iteration" else None for key, x in row.items()} for row in rows]
    assert names(nothing) == ["not finite"]


def test_trends_are_not_judged_over_nine_iterations():
    assert names(ppo(9, explained=-0.5)) == [] and names(ppo(10, explained=-0.5)) == ["dead critic"]


def test_a_ratio_that_still_scatters_says_nothing_while_the_run_goes_on():
    assert names(CASES["ratio does not begin at 1"][0], finished=False) == []   # its rate has not fallen yet


def test_a_learning_rate_that_never_falls_leaves_ratios_that_scatter(tmp_path):
    rows, finding = CASES["ratio does not begin at 1"][0], "ratio does not begin at 1"
    assert names(rows, decayed=False) == []
    for schedule, found in (("constant", []), ("cosine", [finding]), ("linear", [finding])):
        folder = put(tmp_path / schedule, rows, {"schedule": schedule})
        assert [each.name for each, _ in examine(folder)[1]] == found


def test_what_spoils_the_numbers_is_named_before_what_comes_of_it():
    rows = ppo(spread=0.009, explained=-0.1, kl=[-1.0, -0.9], entropy=[3.0] + [0.1] * 19)
    assert names(rows) == ["KL not 0 at the start", "negative KL", "constant score", "entropy collapse",
                           "dead critic"]


# ---------------- folders

def put(folder, rows, config=None, figures=None, calibration=None):
    """A run's folder, finished if it has a config: settings, a dict."""
    folder.mkdir(exist_ok=True)
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    if config is not None:
        about = {"stage": "ppo", "model": {}, "settings": config}
        (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    if figures is not None:
        (folder / "comparison.json").write_text(json.dumps(figures), encoding="utf-8")
    if calibration is not None:
        (folder / "calibration.json").write_text(json.dumps(calibration), encoding="utf-8")
    return str(folder)


def run(*words):
    """The command line; returns its exit status."""
    try:
        launch(main, Config, "", list(words))
    except SystemExit as left:
        return left.code
    return 0


def test_a_healthy_run_gets_one_line_with_the_numbers(tmp_path, monkeypatch, capsys):
    assert "doctor" in COMMANDS
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "run", ppo(), {})
    # means of rows 15 to 19: score 1.7, KL 3.4, entropy 3 - 0.34, explained 0.17
    assert run("run") == 0
    assert capsys.readouterr().out.replace("\n  ", " ") == (
        "run: 20 iterations, finished: healthy: score +0.00 -> +1.70, KL 0.00 -> 3.40, entropy a token "
        "3.00 -> 2.66, explained variance 0.00 -> 0.17, clipped 10% -> 10%, length 10.4 -> 10.5, "
        "ended 95% -> 95%\n")


def test_a_finding_is_told_with_numbers_reason_and_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "run", ppo(k2=1e-13, clipped=0.0), {"lr": 1e-9})
    assert run("run") == 1
    assert capsys.readouterr().out == (
        "run: 20 iterations, finished: 1 finding, the gravest first\n"
        "\n"
        "1. nothing moves\n"
        "   seen  approxkl is 1e-13: an update changes a token's probability by 4e-07 of what it is\n"
        "   why   the steps are too small for the policy to change within the run\n"
        "   do    raise --lr (it was 1e-09)\n")


def test_of_several_runs_one_that_is_sick_decides_the_status(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "one", ppo(), {})
    put(tmp_path / "other", ppo(explained=0.0), {})
    assert run("one", "other") == 1
    out = capsys.readouterr().out
    assert out.startswith("one: 20 iterations, finished: healthy") and "\n\nother: 20 iterations" in out


def test_a_bad_folder_gets_its_line_and_the_others_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "sick", ppo(explained=0.0), {})
    put(tmp_path / "well", ppo(), {})
    assert run("none", "sick", "lost", "well") == 2
    out, err = capsys.readouterr()
    assert out.startswith("sick: 20 iterations, finished: 1 finding") and "\n\nwell: 20 iterations" in out
    assert [line.split("/")[0] for line in err.replace(os.sep, "/").splitlines()] == [
        "error: none", "error: lost"]
    assert run("sick", "well") == 1 and run("well", "well") == 0


def test_a_run_is_told_before_the_next_is_read(tmp_path, monkeypatch, capsys):
    def broken(folder):
        if folder == "next":
            raise KeyboardInterrupt
        return "told", []
    monkeypatch.setattr(doctor, "examine", broken)
    with pytest.raises(KeyboardInterrupt):
        main(Config(("one", "next")))
    assert capsys.readouterr().out == "told\n"


def test_a_flag_is_followed_by_what_it_was_once_and_a_longer_flag_is_another_one():
    assert with_values("--lr, then --lr; --lr-x", {"lr": 0.1}) == "--lr (it was 0.1), then --lr; --lr-x"
    assert with_values("raise --lr", {}) == "raise --lr"
    assert with_values("--value-coef, --value-clip", {"value_clip": 0.2, "value": 1}) == (
        "--value-coef, --value-clip (it was 0.2)")


def test_the_comparison_is_read_if_it_is_there(tmp_path):
    folder = put(tmp_path / "run", ppo(), {}, compared(judged=0.4))
    assert [finding.name for finding, _ in examine(folder)[1]] == ["reward hacked"]


def test_noise_that_was_learned_by_heart_is_found_by_what_was_measured(tmp_path, capsys):
    folder = put(tmp_path / "run", rewards(*[1.0] * 12), {}, calibration=measured(0.5125, 20_000, 900))
    # 0.5 / sqrt(900) = 0.0167
    assert run(folder) == 1
    assert "it orders 51.2% ± 1.7% of the pairs rightly of 900 held-out texts; chance: 50%" in (
        " ".join(capsys.readouterr().out.split()))
    (tmp_path / "run/calibration.json").write_text('{"pairs": 0, "texts": 1, "accuracy": NaN}')
    assert run(folder) == 0


def test_a_half_written_line_is_left_out(tmp_path):
    rows = "".join(json.dumps(row) + "\n" for row in ppo(12))
    assert len(see(put(tmp_path / "run", rows + '{"iteration": 12, "obj')).rows) == 12


# ---------------- runs that are not finished

def test_a_run_that_ended_without_saving_its_state_broke_off(tmp_path, capsys):
    folder = put(tmp_path / "run", ppo(3))
    assert examine(folder)[1][0][0].name == "broke off"
    (tmp_path / "run/state.pt").write_bytes(b"")
    os.utime(tmp_path / "run/state.pt", (1, 1))   # of a minute before the last row
    assert examine(folder)[1][0][0].name == "broke off"
    assert run(folder) == 1 and "ends after iteration 2" in capsys.readouterr().out


def test_a_run_that_was_stopped_with_its_state_saved_is_healthy(tmp_path):
    folder = put(tmp_path / "run", ppo(3))
    (tmp_path / "run/state.pt").write_bytes(b"")   # later than the record
    assert examine(folder) == (doctor.report(folder, see(folder), [], {}), [])
    assert "3 iterations, not finished: healthy (trends are judged from 10" in (
        examine(folder)[0].replace("\n  ", " "))


def test_a_run_that_broke_off_before_its_first_row_is_told_so(tmp_path, capsys):
    assert run(put(tmp_path / "run", "")) == 1
    assert "the record has no iteration" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [ppo(3), ""], ids=["rows", "empty"])
def test_where_the_system_does_not_say_who_writes_no_run_broke_off(tmp_path, monkeypatch, rows):
    folder = put(tmp_path / "run", rows)
    monkeypatch.setattr(files, "fcntl", None)   # Windows
    if rows:
        assert examine(folder)[1] == []
    else:
        with pytest.raises(UserError, match="no iteration yet"):
            examine(folder)


@posix
def test_a_run_that_goes_on_has_not_broken_off_and_is_left_alone(tmp_path):
    folder = put(tmp_path / "run", ppo(3))
    with hold(tmp_path / "run/metrics.jsonl"):
        assert examine(folder)[1] == []
    put(tmp_path / "run", "")
    with hold(tmp_path / "run/metrics.jsonl"), pytest.raises(UserError, match="no iteration yet"):
        examine(folder)
    hold(tmp_path / "run/metrics.jsonl").close()   # doctor holds nothing


# ---------------- what is no record

@pytest.mark.parametrize("rows, message", [
    ('{"iteration": 0}\n[1]\n', "line 2 is no row of numbers; the record is damaged"),
    ('{"iteration": 0, "objective/kl": 0.1}\n', "has no objective/scores: no record of finetune_ppo.py"),
    ('{"iteration": 0, "accuracy/train": 0.1}\n', "has no loss/reward: no record of train_reward.py"),
    ('{"iteration": 0, "x": 0.1}\n', "has no loss/train: no record of pretrain.py")],
    ids=["damaged", "half a row", "another version", "another program"])
def test_what_is_no_record_is_one_line_and_status_2(tmp_path, capsys, rows, message):
    assert run(put(tmp_path / "run", rows, {})) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "1e999", "NaN", "-1e100", "true"])
def test_what_nobody_can_reckon_with_is_a_damaged_record(tmp_path, capsys, number):
    text = "".join(json.dumps(row) + "\n" for row in ppo(12))
    assert run(put(tmp_path / "run", text.replace("0.95", number, 1), {})) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "line 1 is no row of numbers; the record is damaged" in captured.err


def test_responses_without_a_token_do_not_trip_it():
    assert names(ppo(length=0.0)) == []


@pytest.mark.parametrize("name, content", [
    ("comparison.json", compared(accuracy=None)), ("comparison.json", compared(accuracy="good")),
    ("comparison.json", compared(judged=None)), ("comparison.json", compared(score=10 ** 400)),
    ("calibration.json", measured(None)), ("calibration.json", measured(0.9, pairs="many")),
    ("calibration.json", measured(0.9, texts=-1)), ("calibration.json", {"pairs": 10})],
    ids=["null", "text", "a null figure", "huge", "null accuracy", "text", "negative", "missing"])
def test_figures_that_are_no_numbers_are_one_line_and_status_2(tmp_path, capsys, name, content):
    folder = put(tmp_path / "run", ppo(), {})
    (tmp_path / "run" / name).write_text(json.dumps(content), encoding="utf-8")
    assert run(folder) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and f"{name}: no figures of" in captured.err and captured.err.count("\n") == 1


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert run(str(tmp_path / "none")) == 2
    assert "none/metrics.jsonl: cannot be read" in capsys.readouterr().err.replace(os.sep, "/")


def test_figures_and_settings_that_are_none_are_an_error(tmp_path, capsys):
    folder = put(tmp_path / "run", ppo(), {}, {"reference": 3, "policy": "x"})
    assert run(folder) == 2 and "no figures of finetune_ppo.py" in capsys.readouterr().err
    (tmp_path / "run/comparison.json").unlink()
    (tmp_path / "run/config.json").write_text("{")
    assert run(folder) == 2 and "config.json: damaged" in capsys.readouterr().err


@posix   # Windows has no such names
def test_terminal_codes_in_a_setting_or_a_name_are_shown_as_letters(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "run\x1b[31m", ppo(k2=1e-13, clipped=0.0), {"lr": "\x1b[2J"})
    assert run("run\x1b[31m") == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out and "run\\x1b[31m: 20" in out and "(it was \\x1b[2J)" in out
