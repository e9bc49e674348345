"""An episode token by token: the same rewards as `collect` pays at once."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from minippo.bridges.environment import TextGeneration, array, as_gymnasium
from minippo.policy import ActorCritic
from minippo.ppo import PPOConfig, collect, gae
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD, pad_left, pad_right
from minippo.transformer import TransformerConfig, build

TOKENIZER = Tokenizer.train(["a"], 257)   # ids of bytes, and the end
END = TOKENIZER.end
A, B = TOKENIZER.encode("ab")
CONFIG = PPOConfig(response_length=3, kl_coef=0.5, missing_end_score=-1.0, gamma=1.0, lam=1.0)


def count_a(query, response):
    return (response == A).sum(1).float()


def environment(**changes):
    return TextGeneration(count_a, TOKENIZER, replace(CONFIG, **changes), context=8)


def played(world, tokens):
    """(reward, terminated, truncated) of each of these tokens."""
    return [world.step(token)[1:4] for token in tokens]


def model_of(architecture, seed):
    torch.manual_seed(seed)
    lm = build(TransformerConfig(257, END, architecture, width=16, heads=2, layers=1, context=16))
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return ActorCritic(lm, temperature=0.7).eval()


# ---------------------------------------------------------------- by hand

def test_a_reset_shows_the_prompt_and_a_step_appends_its_token():
    world = environment()
    tokens, info = world.reset("ab")
    assert tokens.tolist() == [END, A, B] and info == {"text": "ab"}
    tokens, reward, terminated, truncated, info = world.step(A)
    assert tokens.tolist() == [END, A, B, A] and info == {"text": "aba"}
    assert (reward, terminated, truncated) == (0, False, False)
    assert world.query.tolist() == [[END, A, B]] and world.response.tolist() == [[A]]


def test_the_end_token_terminates_and_is_paid_the_score():
    world = environment()
    world.reset("b")
    assert played(world, [A, A]) == [(0, False, False)] * 2
    _, reward, terminated, truncated, info = world.step(END)
    assert (reward, terminated, truncated) == (2, True, False)   # two letters a; the prompt has none
    assert info == {"text": "baa", "score": 2}


def test_the_longest_response_is_truncated_and_paid_the_fixed_number():
    world = environment()
    world.reset("")
    assert played(world, [A, A, A]) == [(0, False, False), (0, False, False), (-1, False, True)]
    world.reset("")
    assert played(world, [A, B, END])[-1] == (1, True, False)   # the end in the last place is no cut
    world = environment(missing_end_score=0.0)
    world.reset("")
    assert played(world, [A, A, A])[-1] == (3, False, True)


def test_a_step_after_the_end_or_before_a_reset_or_outside_the_vocabulary_is_refused():
    world = environment()
    with pytest.raises(ValueError, match="has not begun: reset first"):
        world.step(A)
    world.reset("a")
    for token in (257, -1):
        with pytest.raises(ValueError, match=f"token {token} is outside the vocabulary of 257"):
            world.step(token)
    with pytest.raises(TypeError):
        world.step(5.7)
    assert world.response.shape == (1, 0)
    world.step(END)
    with pytest.raises(ValueError, match="the response is over"):
        world.step(A)


def test_what_multinomial_gives_is_a_token_and_the_answer_is_a_bool():
    world = environment()
    world.reset("a")
    assert world.step(torch.tensor([A]))[2] is False and world.step(torch.tensor(END))[2] is True


def test_a_prompt_that_leaves_no_room_is_refused():
    environment().reset("aaaa")   # 1 + 4 + 3 = 8
    with pytest.raises(ValueError, match="a prompt of 6 tokens and a response of 3 do not fit"):
        environment().reset("aaaaa")


def test_a_score_per_token_and_half_a_kl_are_refused():
    world = TextGeneration(lambda query, response: torch.ones(response.shape), TOKENIZER, CONFIG, 8)
    world.reset("a")
    with pytest.raises(ValueError, match=r"a score of shape \(1, 1\)"):
        world.step(END)
    with pytest.raises(ValueError, match="a KL needs policy and reference"):
        TextGeneration(count_a, TOKENIZER, CONFIG, 8, policy=model_of("decoder", 0))


def test_rewards_are_never_whitened():
    world = environment(whiten_rewards=True)
    world.reset("b")
    assert played(world, [A, A, END])[-1] == (2, True, False)   # two a


@pytest.mark.skipif(not importlib.util.find_spec("gymnasium"), reason="needs gymnasium")
def test_without_prompts_there_is_no_environment():
    with pytest.raises(ValueError, match="no prompts to draw from"):
        as_gymnasium(environment(), [])


# ---------------------------------------------------------------- against collect

@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
@pytest.mark.parametrize("with_kl", [True, False])
def test_token_by_token_the_rewards_are_those_that_collect_pays_at_once(architecture, with_kl):
    policy, reference = model_of(architecture, 0), model_of(architecture, 1)
    config = replace(CONFIG, response_length=6, kl_coef=0.5 if with_kl else 0.0)
    prompts = ["a", "ab", "abba", "b"] * 8
    query = pad_left([[END] + TOKENIZER.encode(prompt) for prompt in prompts])

    def score(query, response):
        return (response == A).sum(1) + 0.25 * (response == END).sum(1) + 0.1 * (query == B).sum(1)

    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(1, 257, (32, 6), generator=generator).tolist()   # 0 is the end
    rows = [row[:i % 6] + [END] if i % 2 else row for i, row in enumerate(rows)]   # every second one ends
    policy.generate = lambda *given: pad_right(rows)
    rollout, _ = collect(policy, reference, score, query, config, generator)
    models = {"policy": policy, "reference": reference} if with_kl else {}
    world = TextGeneration(score, TOKENIZER, config, 16, **models)
    returns = []
    for i, prompt in enumerate(prompts):
        world.reset(prompt)
        tokens = rollout.response[i][rollout.mask[i]].tolist()
        steps = played(world, tokens)
        assert [reward for reward, _, _ in steps] == pytest.approx(
            rollout.rewards[i][rollout.mask[i]].tolist(), abs=2e-5)
        assert [over for _, *over in steps[:-1]] == [[False, False]] * (len(steps) - 1)
        assert steps[-1][1:] == (tokens[-1] == END, tokens[-1] != END)
        returns.append(sum(reward for reward, _, _ in steps))
    assert returns == pytest.approx(rollout.rewards.sum(1).tolist(), abs=1e-4)
    _, undiscounted = gae(rollout.rewards, rollout.values, 1.0, 1.0)   # of the first state: all that follows
    assert returns == pytest.approx(undiscounted[:, 0].tolist(), abs=1e-4)
    assert not with_kl or rollout.rewards[:, 0].abs().min() > 0   # every token paid


# ---------------------------------------------------------------- Gymnasium

def test_an_observation_is_filled_on_the_left():
    assert array(torch.tensor([3, 4]), 4).tolist() == [PAD, PAD, 3, 4]


def test_gymnasium_s_own_check_passes():
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env
    check_env(as_gymnasium(environment(), ["a", "bb"]), skip_render_check=True)


def test_gymnasium_draws_prompts_by_its_seed_and_takes_one_that_is_given():
    pytest.importorskip("gymnasium")
    env = as_gymnasium(environment(), ["a", "bb"])
    texts = [env.reset(seed=seed)[1]["text"] for seed in range(8)]
    assert texts == [env.reset(seed=seed)[1]["text"] for seed in range(8)] and set(texts) == {"a", "bb"}
    observation, _ = env.reset(options={"prompt": "ab"})
    assert observation.tolist() == [PAD] * 5 + [END, A, B]
    observation, reward, terminated, truncated, info = env.step(END)
    assert observation.tolist() == [PAD] * 4 + [END, A, B, END]
    assert (reward, terminated, truncated, info["score"]) == (0, True, False, 0)


def test_two_gymnasium_environments_of_one_have_each_its_own_episode():
    pytest.importorskip("gymnasium")
    world = environment()
    one, two = (as_gymnasium(world, [prompt]) for prompt in ("a", "bb"))
    one.reset(), two.reset()
    one.step(A), two.step(B)
    assert one.step(B)[4]["text"] == "aab" and two.step(A)[4]["text"] == "bbba"


@pytest.mark.skipif(importlib.util.find_spec("gymnasium") is not None, reason="it is installed")
def test_without_gymnasium_one_line_asks_for_it():
    with pytest.raises(UserError, match="this needs gymnasium: pip install gymnasium"):
        as_gymnasium(environment(), ["a"])
