"""Over-optimisation: best-of-n, the curves, and the command from models to figure."""

import json
import math
import os
import signal
import sys
import threading
import time
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minippo.corpora.toy import toy
from minippo.experiments import overoptimization
from minippo.experiments.frontier import (
    BEST,
    PPO,
    best_of,
    canvas,
    curve,
    draw,
    fit,
    peak,
    table,
    verdict,
)
from minippo.experiments.overoptimization import Bench, Config, main, obey, point
from minippo.reward import RewardModel
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD, pad_right
from minippo.tools.shared.comparison import best_of_kl
from minippo.transformer import TransformerConfig, build
from tests.robustness.posix import posix

SCORE = torch.tensor([[0.3, -1.0, 2.0, 0.7, -0.2], [5.0, 4.0, 1.0, 2.0, 3.0]])
VALUE = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0], [-3.0, 0.5, 0.25, 7.0, 1.0]])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_best_of_n_is_the_mean_over_all_subsets_of_n(n):
    found = []
    for scores, values in zip(SCORE.tolist(), VALUE.tolist()):
        bests = [max(subset, key=scores.__getitem__) for subset in combinations(range(5), n)]
        found.append(sum(values[i] for i in bests) / math.comb(5, n))
    assert best_of(n, SCORE, VALUE) == pytest.approx(sum(found) / 2, abs=1e-6)


def test_the_best_of_two_by_hand():
    # pairs of scores 0, 1, 3: their best are 1, 3, 3; the values that go with these 10, 20, 20
    score, value = torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[20.0, 5.0, 10.0]])
    assert best_of(2, score, score) == pytest.approx(7 / 3)
    assert best_of(2, score, value) == pytest.approx(50 / 3)


@pytest.mark.parametrize("n, nats", [(1, 0), (2, 0.193), (4, 0.636), (16, 1.835), (64, 3.175)])
def test_the_kl_of_the_best_of_n(n, nats):
    assert best_of_kl(n) == pytest.approx(nats, abs=2e-3)


def test_a_point_takes_one_text_a_prompt_for_distinct_2():
    texts = [["a b", "a c", "x y"], ["a b", "a c", "x y"]]
    values = {"score": torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0]])}
    assert point(texts, values) == pytest.approx({"score": 7 / 6, "distinct_2": 0.5})  # a b twice
    # best of the first two: "a c" and "a b"; the pairs of scores have the bests 1, 2, 2; 1, 3, 3
    assert point(texts, values, 2) == pytest.approx({"score": 2.0, "distinct_2": 1.0})


def test_what_is_measured_of_responses_by_hand():
    class Sure:
        end = 0

        def __init__(self, logprob):
            self.logprob = logprob

        def __call__(self, query, response):
            return self.logprob * (response != PAD), None, None

    bench = SimpleNamespace(
        reference=Sure(-1.5), sign=-1, settings={"missing_end_score": -7.0},
        reward=lambda query, response: torch.tensor([2.0, 3.0]),
        judge=SimpleNamespace(bag=lambda texts: torch.tensor([0.5, -0.25])))
    response = pad_right([[4, 0], [4, 5, 6]])   # ended; cut off
    found = Bench.judged(bench, Sure(-1.0), None, response, ["a", "b"])
    assert {name: x.tolist() for name, x in found.items()} == {
        "kl": [1.0, 1.5], "score": [-2.0, -7.0], "judge": [-0.5, 0.25],
        "judged_positive": [True, False], "ended": [True, False], "length": [2, 3]}


def points(method, kl, judge, seed=0):
    return [{"method": method, "setting": i + 1, "seed": seed, "kl": k, "judge": j, "score": j,
             "judged_positive": 0.5, "distinct_2": 0.5, "ended": 1.0, "length": 9.0}
            for i, (k, j) in enumerate(zip(kl, judge))]


def test_a_fit_recovers_the_curve_behind_exact_points():
    # best of n, a 1, b 0.25: d (1 - d / 4) at d = 0, 1, 2, 3
    found = fit(BEST, points(BEST, [0, 1, 4, 9], [0, 0.75, 1.0, 0.75]))
    assert (found["a"], found["b"]) == pytest.approx((1, 0.25))
    # PPO, a 2, b 1: d (2 - ln d) at d = 1, e, e^2: 2, e, 0
    found = fit(PPO, points(PPO, [1, math.e ** 2, math.e ** 4], [2, math.e, 0]))
    assert (found["a"], found["b"]) == pytest.approx((2, 1))


@pytest.mark.parametrize("method, a, b, kl", [
    (BEST, 1.0, 0.25, 4.0),              # d = 1 / 0.5 = 2
    (PPO, 2.0, 1.0, 7.389056),           # d = e^(2 - 1), squared
    (PPO, 0.5, 0.5, 1.0),                # d = e^0
    (BEST, -1.0, 0.25, 0.0),             # falls from the start
    (BEST, 1.0, 0.0, None), (PPO, 1.0, -0.1, None),   # never falls
])
def test_the_peak(method, a, b, kl):
    assert peak(method, a, b) == (kl if kl is None else pytest.approx(kl))


@pytest.mark.parametrize("method, a, b", [(BEST, 1.3, 0.4), (PPO, 0.8, 0.6)])
def test_no_point_of_the_curve_is_above_the_peak(method, a, b):
    d = np.linspace(0, 9, 90_001)
    highest = d[curve(method, d, a, b).argmax()]
    assert peak(method, a, b) == pytest.approx(highest ** 2, abs=1e-3)


def test_the_curves_begin_at_0():
    assert curve(PPO, np.zeros(1), 1.0, 1.0) == 0 == curve(BEST, np.zeros(1), 1.0, 1.0)


def test_the_verdict_says_whether_the_judge_turns_within_the_range():
    falls = points(BEST, [0, 1, 4, 9], [0, 0.75, 1.0, 0.75])
    rises = points(BEST, [0, 1], [0, 0.75]) + points(BEST, [2.25], [0.9375], seed=1)
    assert "the judge's score turns down at KL 4.0 (measured up to 9.0)" in verdict(BEST, falls)
    assert "does not turn down within the range measured (KL up to 2.2)" in verdict(BEST, rises)
    assert "seed by seed: 4.0, none." in verdict(
        BEST, falls + points(BEST, [1, 2.25], [0.75, 0.9375], seed=1))


def test_a_kl_estimated_below_0_counts_as_0():
    found = fit(PPO, points(PPO, [-0.01, 1, math.e ** 2], [0, 2, math.e]))
    assert (found["a"], found["b"]) == pytest.approx((2, 1))


def test_the_table_has_means_and_the_spread_over_seeds():
    both = points(PPO, [1.0], [0.5]) + points(PPO, [3.0], [0.5], seed=1)
    assert table(both).splitlines()[2] == (
        "| PPO, kl-coef 1 | 2.00 (1.00 to 3.00) | 0.50 | 0.50 | 0.50 | 0.50 | 1.00 | 9.00 |")


def test_without_matplotlib_one_line_says_what_the_figure_needs(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert canvas() is None
    assert capsys.readouterr() == ("", "note: no figure: this needs matplotlib: pip install matplotlib\n")


def test_a_figure_is_opaque_whole_at_every_moment_and_follows_no_link(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("matplotlib.image")
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "figure.png").symlink_to("mine")
    both = points(PPO, [0.5, 1.0, 2.0], [0.2, 0.5, 0.6]) + points(BEST, [0.5, 1.0], [0.2, 0.5])
    draw(canvas(), both, tmp_path / "figure.png")
    assert (tmp_path / "mine").read_text() == "kept" and not (tmp_path / "figure.png").is_symlink()
    drawn = image.imread(tmp_path / "figure.png")
    assert drawn.shape == (800, 1280, 4) and drawn[0, 0].tolist() == [1, 1, 1, 1]   # 5 x 8 inches of 160 dots


# ---------------------------------------------------------------- the whole command

@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Settings of a small sweep over untrained models with seed 5."""
    folder = tmp_path_factory.mktemp("sweep")
    tokenizer = Tokenizer.train([row.text for row in toy(400)], 300)
    torch.manual_seed(0)
    lm = build(TransformerConfig(tokenizer.vocab_size, tokenizer.end, width=16, heads=2, layers=1,
                                 context=40)).eval()
    settings = overoptimization.Config(data="toy")
    reward = RewardModel(lm)
    reward.gain.fill_(100)
    for stage, model in (("pretrain", lm), ("reward", reward)):
        (folder / "5" / stage).mkdir(parents=True)
        checkpoint.save(folder / "5" / stage, stage, model, tokenizer, settings)
    return dict(out=str(folder / "out"), runs=str(folder / "runs"), data="toy", device="cpu",
                model=f"{folder}/{{seed}}/pretrain", reward=f"{folder}/{{seed}}/reward",
                seeds="5,", kl_coefs="0.1,0.2", best_of="1,2,8", prompts=8, responses=2,
                ppo="--iterations 1 --rollout-size 8 --minibatch-size 8 --precision fp32 "
                    "--response-length 12 --missing-end-score 0")


@pytest.fixture(scope="module")
def swept(flags):
    main(Config(**flags))
    return SimpleNamespace(**flags)


@pytest.mark.slow
def test_a_sweep_measures_every_setting_and_the_reference_is_the_origin(swept):
    found = json.loads((Path(swept.out) / "points.json").read_text())
    settings = [(p["method"], p["setting"]) for p in found["points"]]
    assert settings == [(BEST, 1), (BEST, 2), (BEST, 8), (PPO, 0.1), (PPO, 0.2)]
    reference, *others = found["points"]
    assert [reference[x] for x in ("kl", "score", "judge")] == pytest.approx([0, 0, 0], abs=1e-6)
    # in standard deviations no distribution has more than (n - 1) / sqrt(2 n - 1) as the mean of
    # the best of n, for 2 and 8 (Hartley and David 1954)
    assert 0.3 < others[0]["score"] < 0.578 and 0.8 < others[1]["score"] < 1.808
    assert others[0]["kl"] == pytest.approx(0.193, abs=1e-3)
    assert all(p["seed"] == 5 and 0 < p["length"] <= 12 for p in found["points"])
    assert others[2]["kl"] != 0 and abs(others[2]["kl"]) < 0.1   # one small step


@pytest.mark.slow
def test_a_sweep_writes_a_table_a_verdict_and_a_figure(swept):
    text = (Path(swept.out) / "table.md").read_text()
    assert "| PPO, kl-coef 0.2 |" in text and "| best of 8 |" in text
    assert "best of n: the judge's score " in text and "PPO: the judge's score " in text
    pytest.importorskip("matplotlib")
    assert (Path(swept.out) / "overoptimization.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_a_finished_run_is_used_again_but_not_for_other_flags_or_models(swept):
    model = Path(swept.runs) / "5/kl-0.1/model.pt"
    before = (Path(swept.out) / "points.json").read_text(), model.stat().st_mtime_ns
    main(Config(**vars(swept)))
    assert ((Path(swept.out) / "points.json").read_text(), model.stat().st_mtime_ns) == before
    with pytest.raises(UserError, match="kl-0.1: finetune_ppo.py left with status 2"):
        main(Config(**vars(swept) | {"ppo": "--iterations 2"}))
    (Path(swept.reward.replace("{seed}", "5")) / "config.json").touch()
    with pytest.raises(UserError, match="kl-0.1: holds a run older than .*reward; delete it"):
        main(Config(**vars(swept)))


def test_what_is_missing_is_said_before_anything_runs(flags, tmp_path):
    for wrong, message in [({"model": f"{tmp_path}/{{seed}}"}, "5: no trained model here"),
                           ({"kl_coefs": "0.1"}, "a curve takes two points"),
                           ({"best_of": "1,4"}, "a curve takes two points"),
                           ({"seeds": "0"}, "give numbers from 1 on")]:
        with pytest.raises(UserError, match=message):
            main(Config(**flags | {"out": str(tmp_path / "out")} | wrong))
    assert not (tmp_path / "out").exists()


@posix
def test_who_stops_a_sweep_stops_its_run_once_and_waits_until_it_has_saved(tmp_path):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    code = f"""
import pathlib, signal, sys, time
def save(*_):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    time.sleep(0.5)
    pathlib.Path({str(saved)!r}).touch()
signal.signal(signal.SIGTERM, save)
pathlib.Path({str(ready)!r}).touch()
for _ in range(1000):
    time.sleep(0.01 if not pathlib.Path({str(saved)!r}).exists() else sys.exit())"""

    def stop():
        end = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        obey([sys.executable, "-c", code])
    assert saved.exists()
    assert obey([sys.executable, "-c", "raise SystemExit(7)"]) == 7
