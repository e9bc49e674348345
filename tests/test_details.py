"""docs/details.md and the tests agree; and literal numbers of its rows that stand nowhere else."""

import ast
import importlib
import inspect
import math
import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import finetune_ppo
import train_reward
from minippo import checkpoint
from minippo.data import Comparisons, Prompts
from minippo.generation import generate
from minippo.policy import ActorCritic
from minippo.ppo import PPOConfig, kl_estimates
from minippo.reward import RewardModel
from minippo.rows import Row
from minippo.tokenizer import Tokenizer
from minippo.tools.calibration import accuracy, expected_calibration_error
from minippo.transformer import TransformerConfig, build

ROOT = Path(__file__).resolve().parent.parent
LEDGER = (ROOT / "docs/details.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the list itself

def ledger():
    """The rows in order: (number, text) of each."""
    parts = re.split(r"^### (\d+)\. ", LEDGER, flags=re.M)
    return list(zip(map(int, parts[1::2]), parts[2::2]))


def named_tests(text):
    """Names as pytest has them, such as tests/test_ppo.py::test_d30_entropy_of_a_categorical."""
    return re.findall(r"`(tests/test_\w+\.py::test_\w+)`", text)


def existing_tests():
    """The same names of all tests there are, read and not imported."""
    return [f"tests/{path.name}::{node.name}" for path in sorted((ROOT / "tests").glob("test_*.py"))
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_every_detail_stands_in_the_list_once_and_in_order():
    assert [number for number, _ in ledger()] == list(range(1, 46))


@pytest.mark.parametrize("number, text", ledger(), ids=[f"d{n:02}" for n, _ in ledger()])
def test_a_row_names_its_code_and_tests_of_its_own_number(number, text):
    fact, _, rest = text.partition("\n- Code: ")
    code, _, tests = rest.partition("\n- Tests: ")
    named = named_tests(tests)
    assert fact.count("\n") >= 1 and "](../" in code
    assert named and all(f"::test_d{number:02}_" in name for name in named)
    assert len(named) == tests.count("::")   # the pattern passes over no name


def test_every_test_of_a_detail_is_in_the_list_and_every_test_in_the_list_is_there():
    there = Counter(name for name in existing_tests() if re.search(r"::test_d\d", name))
    assert Counter(named_tests(LEDGER)) == there
    assert set(there.values()) == {1}   # a second test of the same name would hide the first


FUNCTIONS = sorted(set(re.findall(r"\[`([\w.]+)`\]\(([^)]+)\)", LEDGER)))


@pytest.mark.parametrize("name, file", FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_every_function_in_the_list_is_there(name, file):
    path = (ROOT / "docs" / file).resolve()
    module, *attributes = name.split(".")
    assert path.stem == module and path.is_file()
    found = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for attribute in attributes:
        found = getattr(found, attribute)


def test_every_file_that_a_link_leads_to_is_there():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", LEDGER)
    assert len(targets) > 45
    assert all((ROOT / "docs" / target).is_file() for target in targets if "://" not in target)


# ---------------------------------------------------------------- tokens and generation

def test_d05_a_later_token_of_a_rollout_has_the_softmax_s_frequencies(lm):
    query = torch.zeros(8000, 1).long()
    response = ActorCritic(lm).generate(query, 2, torch.Generator().manual_seed(0))
    first = response[:, 0].bincount(minlength=11)
    first[lm.end] = 0
    token = first.argmax()   # the commonest first token that is not the end
    second = response[response[:, 0] == token, 1]
    probabilities = lm(query[:1], torch.tensor([[token, 0]])).detach()[0, 1].softmax(-1)
    expected = probabilities * len(second)
    assert expected.min() > 5   # else chi-square does not hold
    chi_square = ((second.bincount(minlength=11) - expected).square() / expected).sum()
    assert chi_square < 29.59   # 10 degrees of freedom, p = 0.001


def test_d05_ppo_has_no_way_to_ask_for_top_k_or_top_p():
    flags = {field.name for field in fields(finetune_ppo.Config)}
    arguments = inspect.signature(ActorCritic.generate).parameters.keys()
    assert "temperature" in flags and not {"top_k", "top_p", "greedy"} & (flags | arguments)
    defaults = inspect.signature(generate).parameters
    assert (defaults["top_k"].default, defaults["top_p"].default) == (0, 1.0)   # off


# ---------------------------------------------------------------- the reward model

TOKENIZER = Tokenizer.train(["each byte is a token"], 257)
LN3 = math.log(3)


def small(**settings):
    """A random language model of bytes."""
    lm = build(TransformerConfig(257, TOKENIZER.end, **{"width": 8, "heads": 2, "layers": 1,
                                                         "context": 32} | settings)).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return lm


def rated(*votes):
    return [Row(str(i), "abcdefgh"[i:], tuple(map(float, some))) for i, some in enumerate(votes)]


def test_d11_a_head_of_gpt2_s_width_starts_with_a_deviation_of_0_03606():
    torch.manual_seed(0)
    lm = build(TransformerConfig(2, 0, width=768, heads=1, layers=0))
    heads = [RewardModel(lm).head for _ in range(400)]
    weights = torch.cat([head.weight for head in heads])
    # 1 / sqrt(769) of 307,200 draws: known to 0.13 %, so 1 % is 7 deviations; 1/769 is 0.0013
    assert weights.std().item() == pytest.approx(0.03606, rel=0.01)
    assert abs(weights.mean().item()) < 0.0003 and all(head.bias.item() == 0 for head in heads)


def test_d14_the_targets_are_mean_ratings_of_mean_0_and_deviation_1():
    ratings = Comparisons(rated([1, 3], [4], [5, 7]), TOKENIZER, 32).ratings()
    assert ratings.tolist() == [2, 4, 6]
    # mean 4, population variance 8/3: -+ 2 / sqrt(8/3)
    expected = pytest.approx([-1.224745, 0, 1.224745], abs=1e-6)
    assert train_reward.standardized(ratings).tolist() == expected


def test_d15_the_reward_model_takes_one_step_a_group_and_the_rate_ends_at_0(tmp_path, monkeypatch):
    rates, step = [], train_reward.step

    def watched(model, optimizer, *others, **named):
        rates.append(optimizer.param_groups[0]["lr"])
        norm = step(model, optimizer, *others, **named)
        rates.append(optimizer.param_groups[0]["lr"])   # what a next step would have
        return norm
    monkeypatch.setattr(train_reward, "step", watched)
    comparisons = Comparisons(rated(*([i] for i in range(8))), TOKENIZER, 32)
    generator = torch.Generator().manual_seed(0)
    groups = comparisons.groups(4, 2, generator)   # 8 texts in groups of 4, twice: 4 groups
    config = train_reward.Config(lr=0.008)
    (tmp_path / "metrics.jsonl").touch()   # as `start` does
    train_reward.train(RewardModel(small()), comparisons, groups, config, tmp_path, generator)
    assert rates[::2] == pytest.approx([0.008, 0.006, 0.004, 0.002]) and rates[-1] == 0


def test_d16_responses_of_the_pretrained_model_score_mean_0_and_deviation_1():
    torch.manual_seed(0)
    pretrained, reward = small(), RewardModel(small()).eval()   # the reward's own lm is another
    config = train_reward.Config(response_length=8)
    assert config.normalize_samples == 512 >= 256
    prompts = Prompts(rated([1], [2]), TOKENIZER, 1, 4, 24)
    train_reward.normalize(reward, pretrained, prompts, config, torch.Generator().manual_seed(5))
    again = torch.Generator().manual_seed(5)   # the same draws: the same prompts and responses
    query = prompts.sample(512, again)
    scores = reward(query, generate(pretrained, query, 8, config.temperature, generator=again))
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_d17_margins_twice_too_large_are_as_accurate_and_too_sure():
    margins = torch.tensor([LN3, LN3, LN3, -LN3])   # sigmoid 0.75, right three times of four
    assert accuracy(margins) == accuracy(2 * margins) == 0.75
    assert expected_calibration_error(margins) == pytest.approx(0, abs=1e-6)
    # twice as large: sigmoid(ln 9) = 0.9
    assert expected_calibration_error(2 * margins) == pytest.approx(0.15, abs=1e-6)


# ---------------------------------------------------------------- KL, optimiser, stage 3

def test_d21_upside_down_k3_says_1_22_where_the_kl_is_a_half():
    x = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    pi, reference = (-(x - mean).square() / 2 - math.log(2 * math.pi) / 2 for mean in (0, 1))

    def expected(k):
        return (pi.exp() * k).sum().item() / 1000
    assert expected(kl_estimates(pi, reference)[2]) == pytest.approx(0.5, abs=1e-6)
    # r = pi / pi_ref under samples of pi: E r - 1 - E log r = e - 1 - 1/2
    assert expected(kl_estimates(reference, pi)[2]) == pytest.approx(1.2183, abs=1e-4)


def test_d35_tensorflow_s_first_step_is_pytorch_s_with_an_epsilon_32_times_as_large():
    def first_step(eps):
        weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
        weight.grad = torch.tensor(1e-4, dtype=torch.float64)
        torch.optim.Adam([weight], 1e-5, eps=eps).step()
        return -weight.item()
    assert first_step(1e-5) == pytest.approx(9.09e-6, rel=1e-3)   # 1e-5 * 1e-4 / 1.1e-4
    # TensorFlow's 1e-5 is 1e-5 / sqrt(1 - 0.999) = 3.162e-4 here: 1e-9 / 4.162e-4
    assert first_step(3.162e-4) == pytest.approx(2.40e-6, rel=2e-3)


def outputs(model, query, response):
    return model(query, response)[:2]   # log-probabilities and values


@pytest.fixture
def folders(tmp_path):
    """Folders of the first two stages, of models with dropout."""
    lm = small(dropout=0.5)
    for stage in ("pretrain", "reward"):
        (tmp_path / stage).mkdir()
    checkpoint.save(tmp_path / "pretrain", "pretrain", lm, TOKENIZER, PPOConfig())
    checkpoint.save(tmp_path / "reward", "reward", RewardModel(lm), TOKENIZER, PPOConfig())
    return {"model": str(tmp_path / "pretrain"), "reward": str(tmp_path / "reward")}


def test_d37_a_separate_critic_values_what_the_target_seeks_and_leaves_the_reward_alone(
        query, response):
    reward = RewardModel(small()).eval()
    reward.normalize(torch.tensor([1., 5.]))   # gain 1/2, shift -3/2
    critic = finetune_ppo.separate_critic(reward, -1)
    expected = -reward.prefix_scores(query, response)
    assert torch.allclose(critic.prefix_scores(query, response), expected, atol=1e-6)
    assert (reward.gain.item(), reward.shift.item()) == (0.5, -1.5)
    theirs = {p.data_ptr() for p in reward.parameters()}
    assert not theirs & {p.data_ptr() for p in critic.parameters()}
    assert all(p.requires_grad for p in critic.parameters())


@pytest.mark.parametrize("separate", [False, True])
def test_d38_stage_3_runs_without_dropout_even_on_models_that_have_it(
        folders, query, response, separate):
    config = finetune_ppo.Config(**folders, separate_critic=separate, precision="fp32")
    policy, reward, _ = finetune_ppo.load(config, torch.device("cpu"))
    assert policy.lm.config.dropout == 0.5
    for one, other in zip(outputs(policy, query, response), outputs(policy, query, response)):
        assert torch.equal(one, other)
    assert torch.equal(reward(query, response), reward(query, response))
    policy.train()   # and it would show
    assert not torch.equal(*(policy(query, response)[0] for _ in range(2)))


def test_d45_the_defaults_are_those_of_language_models_and_no_weight_is_orthogonal():
    config = PPOConfig()
    found = (config.max_grad_norm, config.entropy_coef, config.value_coef, config.gamma)
    assert found == (1.0, 0.0, 0.1, 1.0)   # in games 0.5, 0.01, 0.5, 0.99
    assert replace(config, **{f.name: getattr(finetune_ppo.Config(), f.name)
                              for f in fields(PPOConfig)}) == config   # stage 3 changes none
    torch.manual_seed(0)
    lm = build(TransformerConfig(300, 0, width=64, heads=2, layers=1))
    for name, weight in lm.named_parameters():
        if weight.dim() == 2:   # orthogonal: the products of different columns are all 0
            columns = weight / weight.norm(dim=0)
            products = columns.T @ columns - torch.eye(weight.shape[1])
            assert products.square().mean().sqrt() > 0.03, name   # random: 1/sqrt(rows), 0.058
