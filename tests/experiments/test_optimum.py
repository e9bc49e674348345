"""The task whose optimum is known: its exact numbers, and that PPO comes close."""

import math
import sys

import pytest
import torch

from minippo.experiments.optimum import (
    Config,
    divergence,
    every_response,
    main,
    make_task,
    measure,
    objective,
    optimum,
    response_logprobs,
    train,
)
from minippo.generation import generate
from minippo.policy import ActorCritic
from minippo.run.commands import COMMANDS
from minippo.run.errors import UserError
from minippo.tokens import PAD

SMALL = dict(vocabulary=3, response_length=3)   # 1 + 2 + 4 ended, 8 cut off: 15 responses


@pytest.fixture(params=["decoder", "seq2seq"])
def architecture(request):
    return request.param


# ---------------------------------------------------------------- exact numbers

def test_two_responses_worked_by_hand():
    # pi_ref (1/2, 1/2), r (2 ln 3, 0), beta 2: pi_ref exp(r / beta) = (3/2, 1/2), Z = 2,
    # pi* = (3/4, 1/4), J* = 2 ln 2;  J(pi_ref) = (2 ln 3) / 2 = ln 3
    # KL(pi_ref || pi*) = ln(2/3) / 2 + ln(2) / 2 = ln(4/3) / 2 = (2 ln 2 - ln 3) / 2
    reference = torch.tensor([[0.5, 0.5]]).double().log()
    rewards = torch.tensor([[2 * math.log(3), 0.0]]).double()
    best, best_objective = optimum(reference, rewards, 2.0)
    assert best.exp()[0].tolist() == pytest.approx([0.75, 0.25])
    assert best_objective == pytest.approx(1.386294, abs=1e-6)
    assert objective(reference, reference, rewards, 2.0) == pytest.approx(1.098612, abs=1e-6)
    assert divergence(reference, best) == pytest.approx(0.143841, abs=1e-6)
    # at pi*: 3/4 (2 ln 3 - 2 ln(3/2)) + 1/4 (0 - 2 ln(1/2)) = 2 ln 2
    assert objective(best, reference, rewards, 2.0) == pytest.approx(1.386294, abs=1e-6)


def test_all_queries_count_the_same():
    # the query above, and one whose rewards are all 1: J* = J(pi_ref) = 1, pi* = pi_ref
    reference = torch.tensor([[0.5, 0.5], [0.1, 0.9]]).double().log()
    rewards = torch.tensor([[2 * math.log(3), 0.0], [1.0, 1.0]]).double()
    best, best_objective = optimum(reference, rewards, 2.0)
    assert best_objective == pytest.approx((1.386294 + 1) / 2, abs=1e-6)
    assert objective(reference, reference, rewards, 2.0) == pytest.approx(1.049306, abs=1e-6)
    assert divergence(reference, best) == pytest.approx(0.143841 / 2, abs=1e-6)


def test_every_response_stands_there_once():
    assert every_response(3, 2).tolist() == [
        [0, PAD], [1, 0], [2, 0], [1, 1], [1, 2], [2, 1], [2, 2]]
    assert every_response(3, 2, end=2).tolist() == [
        [2, PAD], [0, 2], [1, 2], [0, 0], [0, 1], [1, 0], [1, 1]]
    assert len(every_response(8, 4)) == 1 + 7 + 49 + 343 + 7 ** 4
    assert len(set(map(tuple, every_response(8, 4).tolist()))) == 2801


def test_the_probabilities_of_all_responses_sum_to_one(lm, query):
    # vocabulary 11, up to 3 tokens: 1 + 10 + 100 ended, 1000 cut off
    responses = every_response(11, 3)
    for temperature in (1.0, 0.6):
        logprobs = response_logprobs(ActorCritic(lm, temperature=temperature), query, responses)
        assert logprobs.shape == (3, 1111) and logprobs.dtype == torch.float64
        assert logprobs.exp().sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_the_distance_of_any_policy_is_what_its_objective_lacks(architecture):
    config = Config(temperature=1.3, kl_coef=0.7, **SMALL)
    task, other = (make_task(config, architecture, seed) for seed in (0, 1))
    start, policy = (response_logprobs(model, task.queries, task.responses)
                     for model in (task.reference, other.reference))
    best, best_objective = optimum(start, task.rewards, 0.7)
    assert best.exp().sum(1).tolist() == pytest.approx([1, 1])
    assert objective(best, start, task.rewards, 0.7) == pytest.approx(best_objective, abs=1e-6)
    for logprobs in (start, policy):
        lacking = best_objective - objective(logprobs, start, task.rewards, 0.7)
        assert lacking > 0.01
        assert divergence(logprobs, best) == pytest.approx(lacking / 0.7, abs=1e-5)


def test_samples_come_as_often_as_the_enumeration_says(architecture):
    config = Config(temperature=1.5, **SMALL)
    task = make_task(config, architecture, 1)
    n, generator = 20_000, torch.Generator().manual_seed(0)
    query = task.queries[:1].expand(n, -1)
    response = generate(task.reference.lm, query, 3, 1.5, generator=generator)
    same = (response[:, None] == task.responses).all(-1)           # (n, 15)
    assert same.sum(1).eq(1).all()

    def chi_square(temperature):
        policy = ActorCritic(task.reference.lm, temperature=temperature)
        expected = n * response_logprobs(policy, task.queries[:1], task.responses)[0].exp()
        assert expected.min() > 5
        return ((same.sum(0) - expected).square() / expected).sum().item()

    assert chi_square(1.5) < 36.1    # 14 degrees of freedom: exceeded once in a thousand
    assert chi_square(1.0) > 200


def test_a_response_is_worth_the_sum_of_its_tokens_over_the_root_of_the_length():
    task = make_task(Config(), "decoder", 3)

    def worth(*tokens):
        row = torch.tensor([[*tokens] + [PAD] * (4 - len(tokens))])
        return task.rewards[1, (task.responses == row).all(1)].item()
    end, one, two = worth(0), worth(1, 0) - worth(0), worth(2, 0) - worth(0)
    assert worth(2, 1, 2, 0) == pytest.approx(2 * two + one + end, abs=1e-5)
    assert worth(1, 1, 2, 1) == pytest.approx(3 * one + two, abs=1e-5)
    # one token: its worth alone. 50 seeds x 2 queries x 8 tokens: 800 draws from N(0, 1)
    draws = torch.stack([make_task(Config(response_length=1), "decoder", seed).rewards
                         for seed in range(50)])
    assert abs(draws.mean()) < 0.11 and abs(draws.std() - 1) < 0.08    # 3 standard errors


def test_the_score_looks_rewards_up_however_narrow_the_batch():
    task = make_task(Config(**SMALL), "decoder", 0)
    first, second = task.queries
    ended = torch.tensor([[0], [0]])       # all ended at once: one column
    assert torch.equal(task.score(torch.stack([second, first]), ended), task.rewards[[1, 0], 0])
    order = torch.randperm(15)
    assert torch.equal(task.score(second.expand(15, -1), task.responses[order]),
                       task.rewards[1, order])


def test_references_differ_by_seed_and_are_far_from_uniform(architecture):
    rows = [response_logprobs(task.reference, task.queries, task.responses) for task in (
        make_task(Config(**SMALL), architecture, seed) for seed in (0, 1))]
    uniform = torch.full_like(rows[0], -math.log(15))
    assert divergence(rows[0], rows[1]) > 0.1
    assert divergence(rows[0], uniform) > 0.1


# ---------------------------------------------------------------- training

def test_ppo_comes_within_five_percent_of_the_optimum(architecture):
    config = Config(vocabulary=5, response_length=3, iterations=25, rollout_size=256,
                    minibatch_size=128)
    run = measure(config, architecture, 0)
    assert 0 < run.gap < 5
    assert run.reference < run.final < run.best
    # KL(pi || pi*) = (J* - J) / beta at both ends
    assert run.curve[0] == pytest.approx((run.best - run.reference) / 0.4, abs=1e-5)
    assert run.curve[-1] == pytest.approx((run.best - run.final) / 0.4, abs=1e-5)
    assert len(run.curve) == 13 and run.curve[6] < run.curve[0] / 4


def test_a_policy_that_learns_nothing_keeps_the_whole_gap():
    run = measure(Config(lr=0.0, iterations=2, rollout_size=8, **SMALL), "decoder", 0)
    assert run.gap == 100 and run.final == run.reference


def test_training_leaves_the_reference_alone_and_repeats_itself():
    config = Config(iterations=2, rollout_size=16, **SMALL)
    task = make_task(config, "decoder", 0)
    before = response_logprobs(task.reference, task.queries, task.responses)
    finals = []
    for seed in (5, 5, 6):
        *_, policy = train(task, config, seed)
        finals.append(response_logprobs(policy, task.queries, task.responses))
    assert torch.equal(before, response_logprobs(task.reference, task.queries, task.responses))
    assert torch.equal(finals[0], finals[1]) and not torch.equal(finals[0], finals[2])


# ---------------------------------------------------------------- the command

TINY = dict(iterations=4, rollout_size=8, seed=3, seed_count=2, **SMALL)


def test_a_row_per_architecture_and_seed(capsys):
    assert "optimum" in COMMANDS
    main(Config(**TINY))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[2:-1]]
    assert [row[:2] for row in rows] == [["decoder", "3"], ["decoder", "4"],
                                         ["seq2seq", "3"], ["seq2seq", "4"]]
    run = measure(Config(**TINY), "seq2seq", 4)
    assert [float(x) for x in rows[3][2:6]] == pytest.approx(
        [run.reference, run.final, run.best, run.gap], abs=6e-3)
    assert [float(x) for x in rows[3][6:]] == pytest.approx(
        [run.curve[i] for i in (0, 3, 6, 9, 12)], abs=6e-5)
    assert lines[-1] == f"largest gap: {max(float(row[5]) for row in rows):.2f} %"


def test_a_figure_of_all_runs(tmp_path):
    pytest.importorskip("matplotlib")
    main(Config(plot=str(tmp_path / "optimum.svg"), **TINY))
    text = (tmp_path / "optimum.svg").read_text(encoding="utf-8")
    assert text.count('<g id="line2d_') >= 4 and "</svg>" in text
    main(Config(plot=str(tmp_path / "optimum.png"), **TINY))
    assert (tmp_path / "optimum.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("plot, message", [
    ("nowhere/optimum.png", "--plot nowhere/optimum.png: there is no such folder; make it"),
    ("optimum.foo", r"--plot optimum.foo: the name has to end in \.svg, \.png, \.pdf"),
    ("link.png", "link.png: a link, where a file"),
    ("folder.png", "--plot folder.png is a folder; name a file"),
])
def test_what_no_figure_can_be_written_to_is_said_before_work(tmp_path, monkeypatch, capsys, plot, message):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "link.png").symlink_to("mine")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=message):
        main(Config(plot=plot, **TINY))
    assert capsys.readouterr().out == "" and (tmp_path / "mine").read_text() == "kept"


def test_without_matplotlib_a_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        main(Config(plot="optimum.png", **TINY))
    assert capsys.readouterr().out == ""    # before any work
