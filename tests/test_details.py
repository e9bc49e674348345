"""docs/details.md and the tests agree; and literal numbers of its rows that stand nowhere else."""

import ast
import importlib
import inspect
import math
import re
from collections import Counter
from dataclasses import fields, replace

import pytest
import torch

import finetune_ppo
import train_reward
from minippo.corpora.rows import Row
from minippo.generation import generate
from minippo.policy import ActorCritic
from minippo.ppo import PPOConfig, kl_estimates
from minippo.reward import RewardModel
from minippo.tokenizer import Tokenizer
from minippo.tools.shared.calibration import accuracy, expected_calibration_error
from minippo.transformer import TransformerConfig, build
from tests.outside import ROOT

LEDGER, COMING = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
                  for name in ("details", "coming-from"))


# ---------------------------------------------------------------- the list itself

def ledger():
    """The rows in order: (number, text) of each."""
    parts = re.split(r"^### (\d+)\. ", LEDGER, flags=re.M)
    return list(zip(map(int, parts[1::2]), parts[2::2]))


def named_tests(text):
    """Names as pytest has them, such as tests/run/test_resume.py::test_d42_a_claim."""
    return re.findall(r"`(tests/(?:\w+/)*test_\w+\.py::test_\w+)`", text)


def existing_tests():
    """The same names of all tests there are, in folders below, too; read and not imported."""
    return [f"{path.relative_to(ROOT).as_posix()}::{node.name}"
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def numbers(name):
    """Of tests/test_ppo.py::test_d35_d36_a_claim: [35, 36]."""
    prefix = re.search(r"::test((?:_d\d\d)*)_", name).group(1)
    return [int(number) for number in re.findall(r"\d\d", prefix)]


def test_every_detail_stands_in_the_list_once_and_in_order():
    assert [number for number, _ in ledger()] == list(range(1, 46))


@pytest.mark.parametrize("number, text", ledger(), ids=[f"d{n:02}" for n, _ in ledger()])
def test_a_row_names_its_code_and_tests_of_its_own_number(number, text):
    fact, _, rest = text.partition("\n- Code: ")
    code, _, tests = rest.partition("\n- Tests: ")
    named = named_tests(tests)
    assert fact.count("\n") >= 1 and "](../" in code
    assert named and all(number in numbers(name) for name in named)
    assert len(named) == tests.count("::")   # the pattern passes over no name


def test_every_test_of_a_detail_is_in_its_row_and_every_test_of_a_row_is_there():
    there = Counter((number, name) for name in existing_tests() for number in numbers(name))
    listed = Counter((number, name) for number, text in ledger() for name in named_tests(text))
    assert not there - listed, "write these into their rows of docs/details.md"
    assert not listed - there, "these are in docs/details.md and nowhere else, or there twice"
    assert set(there.values()) == {1}   # a second test of the same name would hide the first


FUNCTIONS = sorted(set(re.findall(r"\[`(\w+\.[\w.]+)`\]\(([^)]+)\)", LEDGER + COMING)))


@pytest.mark.parametrize("name, file", FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_every_function_in_the_lists_is_there(name, file):
    path = (ROOT / "docs" / file).resolve()
    module, *attributes = name.split(".")
    assert path.stem == module and path.is_file()
    found = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for attribute in attributes:
        found = getattr(found, attribute)


def test_every_file_that_a_link_leads_to_is_there():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", LEDGER + COMING)
    assert len(targets) > 75
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


def small():
    """A random language model of bytes."""
    return build(TransformerConfig(257, TOKENIZER.end, width=8, heads=2, layers=1, context=32))


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


def test_d15_the_reward_model_takes_one_step_a_group_and_the_rate_ends_at_0(
        reward_stage, monkeypatch):
    rates, step = [], train_reward.step

    def watched(model, optimizer, *others, **named):
        rates.append(optimizer.param_groups[0]["lr"])
        norm = step(model, optimizer, *others, **named)
        rates.append(optimizer.param_groups[0]["lr"])   # what a next step would have
        return norm
    monkeypatch.setattr(train_reward, "step", watched)
    # 8 texts in groups of 4, twice: 4 groups
    reward_stage(rated(*([i] for i in range(8))), small(), TOKENIZER, group_size=4, passes=2, lr=0.008)
    assert rates[::2] == pytest.approx([0.008, 0.006, 0.004, 0.002]) and rates[-1] == 0


def test_d16_a_score_is_normalized_on_256_responses_or_more():
    assert train_reward.Config().normalize_samples == 512 >= 256


def test_d17_margins_twice_too_large_are_as_accurate_and_too_sure():
    margins = torch.tensor([LN3, LN3, LN3, -LN3])   # sigmoid 0.75, right three times of four
    assert accuracy(margins) == accuracy(2 * margins) == 0.75
    assert expected_calibration_error(margins) == pytest.approx(0, abs=1e-6)
    # twice as large: sigmoid(ln 9) = 0.9
    assert expected_calibration_error(2 * margins) == pytest.approx(0.15, abs=1e-6)


# ---------------------------------------------------------------- KL, optimiser, defaults

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
