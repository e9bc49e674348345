"""Over-optimisation: best of n, the curves and where they turn, and the command from models to figure."""

import json
import math
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minippo import data
from minippo.corpora.toy import toy
from minippo.experiments import overoptimization, proxies
from minippo.experiments.frontier import BEST, PPO, best_of, curve, fit, peak, predicted, smoothed, turn
from minippo.experiments.frontier_page import beside, canvas, draw, report, texts, worst
from minippo.experiments.overoptimization import Config, main
from minippo.experiments.proxies import World, accuracy, best_points, few, learn, measured, pursue
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from minippo.tokens import pad_right
from minippo.tools.shared.comparison import best_of_kl
from tests.experiments.untrained import models_of_seed_5
from train_reward import Config as Stage2

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


def points(method, kl, gold, seed=0, comparisons=64):
    """A run; the proxy's score is its KL, and texts name their place."""
    return [{"method": method, "setting": i, "seed": seed, "comparisons": comparisons, "kl": k, "proxy": k,
             "gold": g, "judged_positive": 0.5, "distinct_2": 0.25, "texts": [f"text {i}", "a\nb"]}
            for i, (k, g) in enumerate(zip(kl, gold))]


def test_a_fit_recovers_the_curve_behind_exact_points():
    # best of n, a 1, b 0.25: d (1 - d / 4) at d = 0, 1, 2, 3
    assert fit(points(BEST, [0, 1, 4, 9], [0, 0.75, 1.0, 0.75])) == pytest.approx((1, 0.25))
    # PPO, a 2, b 1: d (2 - ln d) at d = 1, e, e^2: 2, e, 0
    exact = points(PPO, [1, math.e ** 2, math.e ** 4], [2, math.e, 0])
    assert fit(exact) == pytest.approx((2, 1))
    # the proxy's score, here the KL: d (a - b ln d) = d^2 at d = 1 and e: a = 1, b = 1 - e
    assert fit(exact[:2], "proxy") == pytest.approx((1, 1 - math.e))


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


def test_a_kl_estimated_below_0_counts_as_0():
    assert fit(points(PPO, [-0.01, 1, math.e ** 2], [0, 2, math.e])) == pytest.approx((2, 1))


def test_a_run_of_ppo_stands_at_the_mean_of_five_iterations_and_best_of_n_at_its_points():
    run = points(PPO, [0, 1, 2, 3, 4, 15], [0, 1, 1, 2, 1, 0])
    for p in run[1:5]:
        del p["texts"]   # as pursue leaves them: every fifth has some
    found = smoothed(run[::-1])   # in whatever order
    assert [(p["setting"], p["kl"], p["gold"]) for p in found] == [(2, 2, 1), (3, 5, 1)]
    assert [p["texts"][0] for p in found] == ["text 0", "text 5"]
    assert [p["gold"] for p in smoothed(points(PPO, [0, 1], [0, 1]))] == [0.5]   # shorter than five
    run = points(BEST, [0, 1, 4], [0, 1, 3])
    assert smoothed(run) == run


def test_a_run_turns_at_golds_highest_point():
    top, end = turn(points(PPO, [0, 1, 2, 3, 4, 5, 6], [0, 0, 5, 5, 5, 5, 0]))
    # means of five: 3, 4, 4; the first of the highest, and the last
    assert (top["kl"], top["gold"], end["kl"], end["gold"]) == (3, 4, 4, 4)


def test_the_turn_is_predicted_from_the_first_half_of_a_run_alone():
    # best of n, d (2 - d / 4) at d = 1, 2; then anything: the curve is highest at d = 4
    for later in (7, -50):
        run = points(BEST, [1, 4, 9, 16], [1.75, 3, later, -later])
        assert predicted(run[::-1]) == pytest.approx(16)
    assert predicted(points(BEST, [1, 4, 9], [1, 4, 0])) is None   # it bends upwards: d^2


def test_the_table_goes_from_few_comparisons_to_all_ppo_first():
    both = [p for count in (64, 0) for method in (BEST, PPO)
            for p in points(method, [0, 1, 4], [0, 1, 2], comparisons=count)]
    rows = [line.split(" | ") for line in report(both, {64: [0.55], 0: [0.7]}).splitlines()[2:6]]
    assert [row[:3] for row in rows] == [["| PPO", "64", "0.550"], ["| PPO", "all", "0.700"],
                                         ["| best of n", "64", "0.550"], ["| best of n", "all", "0.700"]]


def test_a_row_of_the_table_by_hand():
    # Seed 0: d (3 - d / 2) at d = 1 to 4 is 2.5, 4, 4.5, 4: highest at d = 3, as are the curve through all
    # and that through two. Seed 1: d (2 - d / 2), highest at d = 2. Seed 2 ends 0.1 below its highest: none;
    # least squares at d = 1, 2, 3: a = 177.5 / 76, b = 34.3 / 76, (a / 2b)^2 = 6.7; through two d (2 - d / 4)
    # Gold / proxy at the ends: 4 / 16, 0 / 16, 2.9 / 9
    both = (points(BEST, [1, 4, 9, 16], [2.5, 4, 4.5, 4]) + points(BEST, [1, 4, 9, 16], [1.5, 2, 1.5, 0], 1)
            + points(BEST, [1, 4, 9], [1.75, 3, 2.9], 2))
    assert report(both, {64: [0.5, 0.6, 0.7]}).splitlines()[2] == (
        "| best of n | 64 | 0.600 (0.500 to 0.700) | 9.0, 4.0, - | 9.0, 4.0, 6.7 | 9.0, 4.0, - "
        "| 3.17 (2.00 to 4.50) | 2.30 (0.00 to 4.00) | 0.50 | 0.50 | 0.25 | 0.25 "
        "| 5.67 (4.00 to 9.00) | 13.67 (9.00 to 16.00) | 0.19 (0.00 to 0.32) | 13.7 (9.0 to 16.0) |")


def test_a_proxy_that_gained_nothing_has_no_ratio():
    gains = points(BEST, [1, 4], [1, 1], 1)   # its proxy ends at 4, gold at 1
    for kl in ([1, 0], [1, -1e-9]):
        row = report(points(BEST, kl, [1, 1]) + gains, {64: [0.5]}).splitlines()[2].split(" | ")
        assert row[-2] == "0.25"
    assert report(points(BEST, [1, 0], [1, 1]), {64: [0.5]}).splitlines()[2].split(" | ")[-2] == "-"


def test_a_fall_of_a_fifth_is_a_turn_and_less_is_none():
    rows = [report(points(BEST, [1, 4, 9], [1, 3, end]), {64: [0.5]}).splitlines()[2] for end in (2.79, 2.81)]
    assert [row.split(" | ")[3] for row in rows] == ["4.0", "-"]


def test_best_of_64_stands_beside_ppo_where_that_first_has_as_much():
    rises = points(PPO, range(9), range(9), comparisons=0)   # means of five: gold 2 to 6 at KL 2 to 6
    best = points(BEST, [0.6, 3.2, 4.5], [1, 3.5, 5], comparisons=0)
    for p, n in zip(best, (4, 60, 256)):
        p["setting"] = n
    few = points(BEST, [3.2], [9]) + points(PPO, range(9), range(9))
    assert beside(few + best + rises) == (
        "Proxies that learned from all comparisons: the best of 60 has gold 3.50 at KL 3.2, judged positive "
        "0.50, distinct-2 0.25; PPO first has as much at KL 4.0, judged positive 0.50, distinct-2 0.25.")
    assert beside(few).endswith(" has gold 9.00 at KL 3.2, judged positive 0.50, distinct-2 0.25; PPO never "
                                "has as much.")


def test_the_worst_run_is_ppos_in_which_gold_fell_furthest_whatever_its_height():
    flat, falls = points(PPO, range(10), [9] * 10), points(PPO, range(10), [1] * 5 + [0] * 5, comparisons=256)
    top, end = worst(flat + falls + points(BEST, [1, 4], [9, 0]))
    assert (top["comparisons"], top["gold"], end["gold"]) == (256, 1, 0)


def test_texts_are_those_of_the_ppo_run_in_which_gold_fell_furthest():
    falls = points(PPO, range(10), [1] * 5 + [0.5] * 5, seed=1)
    steep = points(BEST, [1, 4], [9, 0]) + points(PPO, range(10), [1] * 5 + [0.9] * 5)
    found = texts(steep + falls, {0: ["no"], 1: ["the film", "a | b"]}).splitlines()
    assert found[0].startswith("Where gold fell furthest (seed 1, 64 comparisons), texts at its highest ")
    assert found[2:] == ["| prompt | KL 2.0, gold +1.00, proxy +2.00 | KL 7.0, gold +0.50, proxy +7.00 |",
                         "| --- | --- | --- |", "| the film | text 0 | text 5 |",
                         r"| a \| b | a\nb | a\nb |"]
    assert found[0].endswith(" and at the end:")
    assert texts(steep, {0: ["no"]}).splitlines()[0].endswith(" at the end (less than 0.2 lower: no turn):")


def test_without_matplotlib_one_line_says_what_the_figure_needs(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert canvas(8, 5) is None
    assert capsys.readouterr() == ("", "note: no figure: this needs matplotlib: pip install matplotlib\n")


def test_a_figure_is_opaque_whole_at_every_moment_and_follows_no_link(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("matplotlib.image")
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "figure.png").symlink_to("mine")
    both = [p for count in (64, 0) for p in points(PPO, [-0.1, 1.0, 2.0], [0.2, 0.5, 0.6], comparisons=count)
            + points(BEST, [0.5, 1.0], [0.2, 0.5], comparisons=count)]
    draw(canvas(8, 5), both, tmp_path / "figure.png")
    assert (tmp_path / "mine").read_text() == "kept" and not (tmp_path / "figure.png").is_symlink()
    drawn = image.imread(tmp_path / "figure.png")
    assert drawn.shape == (800, 1280, 4) and drawn[0, 0].tolist() == [1, 1, 1, 1]   # 5 x 8 inches of 160 dots


def test_a_star_stands_where_gold_turns_and_nowhere_else(tmp_path):
    pytest.importorskip("matplotlib")
    figure = canvas(8, 5)
    draw(figure, points(PPO, range(9), [0, 1, 2, 3, 4, 3, 2, 1, 0]) + points(PPO, range(9), range(9), seed=1)
         + points(BEST, [0, 1, 4], [0, 1, 2]), tmp_path / "figure.png")
    stars = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert stars == [[[4, 2.8]]]   # (2 + 3 + 4 + 3 + 2) / 5


# ---------------------------------------------------------------- proxies

@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Flags of a small run with untrained models of seed 5."""
    return models_of_seed_5(tmp_path_factory.mktemp("models"), gain=100) | dict(
        comparisons="0,64", best_of="1,4,16", prompts=8, iterations=7, rollout_size=64)


@pytest.fixture(scope="module")
def parts():
    return data.split(toy())


@pytest.fixture(scope="module")
def world(flags, parts):
    config = Config(**flags | {"best_of": [1, 4], "iterations": 4, "kl_coef": 0.4, "lr": 0.0})
    return World(config, *overoptimization.folders(config, 5), 5, parts)


def test_no_proxy_sees_a_rating_that_gold_or_judge_learned_from(world, parts):
    assert world.comparisons.texts == [row.text for row in parts["judge"]]
    assert world.judge.bag.texts == [row.text for row in parts["reward"]]
    assert world.held_out.texts == [row.text for row in parts["prompts"] + parts["test"]]


def test_few_comparisons_are_so_many_each_seen_five_times(world):
    groups = few(world.comparisons, 40, torch.Generator().manual_seed(0))
    pairs = [(texts[c].item(), texts[r].item()) for texts, chosen, rejected in groups
             for c, r in zip(chosen, rejected)]
    assert [len(chosen) for _, chosen, _ in groups] == [16, 16, 8] * 5 and len(pairs) == 200
    assert sorted(pairs[:40] * 5) == sorted(pairs) and all(one != other for one, other in pairs)
    again = few(world.comparisons, 40, torch.Generator().manual_seed(1))
    assert {tuple(group[0].tolist()) for group in again}.isdisjoint(tuple(g[0].tolist()) for g in groups)


def test_people_preferred_what_few_comparisons_call_chosen():
    rows = [row.__class__(row.id, row.text, (float(i % 2),)) for i, row in enumerate(toy(50))]
    tokenizer = Tokenizer.train([row.text for row in rows], 260)
    groups = few(data.Comparisons(rows, tokenizer, 40), 8, torch.Generator().manual_seed(0))
    texts, chosen, rejected = groups[0]   # rows with an odd number were rated 1, all others 0
    assert (texts[chosen] % 2).tolist() == [1] * 8 and (texts[rejected] % 2).tolist() == [0] * 8


def test_too_few_votes_that_differ_are_one_line():
    rows = [row.__class__(row.id, row.text, (float(i == 0),)) for i, row in enumerate(toy(400))]
    comparisons = data.Comparisons(rows, Tokenizer.train([row.text for row in rows], 260), 40)
    with pytest.raises(UserError, match="--comparisons 50: too many ratings of the data are equal"):
        few(comparisons, 50, torch.Generator().manual_seed(0))


def test_a_proxy_of_all_comparisons_learns_as_stage_2_does_but_from_one_vote_and_at_half_the_words_rate():
    assert (proxies.ALL_GROUP, proxies.ALL_PASSES, proxies.LR, proxies.LM_COEF, proxies.WEIGHT_DECAY) == (
        Stage2.group_size, Stage2.passes, Stage2.lr, Stage2.lm_coef, Stage2.weight_decay)
    assert proxies.WORD_LR == Stage2.word_lr / 2


def test_a_proxy_learns_what_people_prefer_and_is_normalized(world, monkeypatch):
    monkeypatch.setattr(proxies, "LR", 0.01)   # the model has 16 columns and knows nothing
    proxy = learn(world, 0)
    query, response = world.sample
    ended = (response == world.end).any(1)
    scores = proxy(query, response)[ended]
    assert scores.mean() == pytest.approx(0, abs=1e-3) and scores.std() == pytest.approx(1, abs=1e-2)
    assert not any(x.requires_grad for x in proxy.parameters())
    assert proxy.words.spaced.tolist() == world.tokenizer.spaced() != list(range(proxy.lm.config.vocab_size))
    assert accuracy(world, proxy) > 0.58 > 0.55 > accuracy(world, world.gold)   # that one is untrained


def test_the_price_of_kl_falls_to_0_in_the_first_half_of_a_run(world, monkeypatch):
    used, true = [], proxies.collect
    monkeypatch.setattr(proxies, "collect", lambda *given: used.append(given[4]) or true(*given))
    seen = []
    found = pursue(world, world.gold, seen.append)
    assert [ppo.kl_coef for ppo in used] == pytest.approx([0.4, 0.2, 0, 0]) and seen == found
    assert {ppo.minibatch_size for ppo in used} == {32}   # half of 64 responses
    assert [(p["setting"], len(p.get("texts", []))) for p in found] == [(0, 4), (1, 0), (2, 0), (3, 0)]


def test_a_policy_that_stands_still_stays_at_kl_0_with_the_same_texts(world, monkeypatch):
    monkeypatch.setattr(proxies, "SMOOTH", 2)   # texts of every second iteration; a learning rate of 0
    found = pursue(world, world.gold, lambda point: None)
    assert [p["kl"] for p in found] == pytest.approx([0, 0, 0, 0], abs=1e-5)
    assert found[0]["texts"] == found[2]["texts"]
    assert [p["proxy"] for p in found] == pytest.approx([p["gold"] for p in found], abs=1e-4)


def test_the_best_of_n_by_hand():
    """Two prompts with three responses each; the proxy likes the third, gold the first."""
    gold, texts = torch.tensor([6.0, 0, 0, 3, 3, 0]), ["a b", "a c", "x y", "a b", "a b", "x y"]
    world = SimpleNamespace(
        config=SimpleNamespace(prompts=2, best_of=[1, 2, 3]), draws=(None, None),
        paid=lambda proxy, query, response: torch.tensor([0.0, 1, 2, 1, 0, 3]),
        judged={BEST: ({"gold": gold}, texts)})
    one, two, three = best_points(world, None)
    # means of all; of pairs' bests: proxy 1, 2, 2 and 1, 3, 3, gold 0, 0, 0 and 3, 0, 0; the third of each
    assert (one["proxy"], one["gold"]) == pytest.approx((7 / 6, 2))
    assert (two["proxy"], two["gold"]) == pytest.approx((2, 0.5))
    assert (three["proxy"], three["gold"]) == pytest.approx((2.5, 0))
    # of the first n responses: "a b", "a b"; "a c", "a b"; "x y" twice
    assert [p["distinct_2"] for p in (one, two, three)] == [0.5, 1, 0.5]
    assert [p["kl"] for p in (one, two, three)] == pytest.approx([0, 0.193, 0.432], abs=1e-3)   # ln 3 - 2/3


def test_scores_are_deviations_from_the_reference_on_the_same_prompts(world, monkeypatch):
    """Best of n has its own prompts, PPO has others: its point lies 2 deviations above their mean."""
    paid = world.paid(world.gold, *world.sample)
    high = (paid.mean() + 2 * paid.std()).item()
    monkeypatch.setattr(proxies, "learn", lambda world, count: world.gold)
    monkeypatch.setattr(proxies, "pursue", lambda *given: [{"method": PPO, "proxy": high, "gold": high}])
    one, four, ppo = measured(world, 64, None)[0]
    assert [one[name] for name in ("kl", "proxy", "gold")] == pytest.approx([0, 0, 0], abs=1e-6)
    # in standard deviations no distribution has more than (n - 1) / sqrt(2 n - 1) as the mean of the best of
    # n = 4 (Hartley and David 1954); most of these texts are cut off, and equal. Proxy and gold are one here
    assert 0.3 < four["proxy"] < 1.134 and four["gold"] == pytest.approx(four["proxy"])
    assert [ppo["proxy"], ppo["gold"]] == pytest.approx([2, 2])
    assert {(p["seed"], p["comparisons"]) for p in (one, four, ppo)} == {(5, 64)}


def test_a_response_that_was_cut_off_is_paid_what_ppo_pays(world):
    response = pad_right([[world.end], [5, 6]]).repeat(150, 1)   # more than are computed at once
    paid = world.paid(lambda query, response: torch.full((len(response),), 7.0), response, response)
    assert paid.tolist() == [7.0, -1.0] * 150


# ---------------------------------------------------------------- the whole command

@pytest.fixture(scope="module")
def done(flags):
    main(Config(**flags))
    return flags


def written(flags):
    return {path.name: path.read_bytes() for path in Path(flags["out"]).rglob("*") if path.is_file()}


def test_every_proxy_has_a_point_for_each_iteration_and_each_n(done):
    for count in (64, 0):
        found = json.loads((Path(done["out"]) / f"proxies/5-{count}.json").read_text())
        assert [(p["method"], p["setting"]) for p in found["points"]] == (
            [(BEST, 1), (BEST, 4), (BEST, 16)] + [(PPO, i) for i in range(7)])
        assert {(p["seed"], p["comparisons"]) for p in found["points"]} == {(5, count)}
        assert found["points"][3]["kl"] == pytest.approx(0, abs=1e-4) and found["points"][9]["kl"] > 0


def test_the_command_writes_a_table_texts_and_two_figures(done):
    text = (Path(done["out"]) / "table.md").read_text()
    assert [line.split(" | ")[:2] for line in text.splitlines()[2:6]] == [
        ["| PPO", "64"], ["| PPO", "all"], ["| best of n", "64"], ["| best of n", "all"]]
    assert "Where gold fell furthest (seed 5, " in text and "The judge is right on " in text
    pytest.importorskip("matplotlib")
    assert all(written(done)[name][:4] == b"\x89PNG" for name in ("overoptimization.png", "panel.png"))


def test_a_second_start_computes_nothing_twice_and_writes_the_same(done, monkeypatch):
    before = written(done)
    monkeypatch.setattr(overoptimization, "World", None)
    main(Config(**done))
    main(Config(**done | {"comparisons": "64,0", "seeds": "5,"}))
    assert written(done) == before


def test_after_a_stop_only_what_is_missing_is_made(done, monkeypatch):
    before, made = written(done), []
    (Path(done["out"]) / "proxies/5-0.json").unlink()
    true = overoptimization.measured
    monkeypatch.setattr(overoptimization, "measured",
                        lambda world, count, log: made.append(count) or true(world, count, log))
    main(Config(**done))
    assert made == [0] and written(done) == before


def test_points_of_other_flags_or_models_are_refused(done, tmp_path):
    with pytest.raises(UserError, match="5-64.json: was made with other flags or models; delete it, or name"):
        main(Config(**done | {"lr": 1e-3}))
    other = tmp_path / "5/reward"
    other.mkdir(parents=True)
    for path in Path(done["reward"].replace("{seed}", "5")).iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    main(Config(**done | {"reward": f"{tmp_path}/{{seed}}/reward"}))   # the same model elsewhere
    weights = torch.load(other / "model.pt")
    torch.save(weights | {"shift": torch.ones(())}, other / "model.pt")
    with pytest.raises(UserError, match="5-64.json: was made with other flags or models"):
        main(Config(**done | {"reward": f"{tmp_path}/{{seed}}/reward"}))


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"about": 1', b"null"])
def test_damaged_points_are_refused_with_one_line(content, done, tmp_path):
    (tmp_path / "proxies").mkdir()
    (tmp_path / "proxies/5-64.json").write_bytes(content)
    with pytest.raises(UserError, match="5-64.json: cannot be read, or damaged; delete it, and it is"):
        main(Config(**done | {"out": str(tmp_path)}))


@pytest.mark.parametrize("name", ["points", "accuracy", "judge_accuracy", "prompts", "seed", "comparisons"])
def test_points_with_a_part_missing_are_refused(name, done, tmp_path):
    found = json.loads((Path(done["out"]) / "proxies/5-64.json").read_text())
    del found[name]
    (tmp_path / "proxies").mkdir()
    (tmp_path / "proxies/5-64.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="5-64.json: cannot be read, or damaged"):
        main(Config(**done | {"out": str(tmp_path)}))


def test_what_is_wrong_is_said_before_anything_runs(flags, tmp_path):
    for wrong, message in [({"model": f"{tmp_path}/{{seed}}"}, "5: no trained model here"),
                           ({"reward": flags["model"]}, "holds the model of pretrain.py"),
                           ({"best_of": "1,4"}, "--best-of 1,4: a curve takes two numbers above 1"),
                           ({"seeds": "a"}, "'a': give numbers from 0 on"),
                           ({"comparisons": "-1"}, "'-1': give numbers from 0 on")]:
        with pytest.raises(UserError, match=message):
            main(Config(**flags | {"out": str(tmp_path / "out")} | wrong))
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made .*; name another --out"):
        main(Config(**flags | {"out": str(tmp_path / "file/out")}))


def test_data_without_ratings_is_refused(flags, tmp_path):
    (tmp_path / "plain.txt").write_text("\n".join(row.text for row in toy(400)))
    with pytest.raises(UserError, match="a judge needs rated rows to learn from"):
        main(Config(**flags | {"out": str(tmp_path / "out"), "data": str(tmp_path / "plain.txt")}))
