"""Lines of the three scripts that decide what is learned: each stage in process, on a tiny model."""

import math
from types import SimpleNamespace

import pytest
import torch

import finetune_ppo
import pretrain
import train_reward
from minippo import data
from minippo.corpora.rows import Row
from minippo.corpora.toy import toy
from minippo.policy import frozen
from minippo.reward import RewardModel
from minippo.run import checkpoint, rows, scoring, stage
from minippo.tokenizer import Tokenizer
from minippo.tokens import pad_left, pad_right
from minippo.tools.shared import calibration, samples
from minippo.transformer import TransformerConfig, build

TOKENIZER = Tokenizer.train(["each byte is a token"], 257)
END = TOKENIZER.end
SMALL = {"data": "toy", "device": "cpu", "precision": "fp32"}
QUERY = pad_left([[END, 40], [END, 50, 60]])
RESPONSE = pad_right([[70, 80, END], [90, 100]])


def language_model(dropout=0.5):
    """One that would show it if dropout were on."""
    torch.manual_seed(0)
    lm = build(TransformerConfig(257, END, width=8, heads=1, layers=1, context=64, dropout=dropout))
    return lm.eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a pretrained model and a reward model lie; the toy corpus is a small one."""
    monkeypatch.setattr(stage, "read", lambda name: toy(300))
    lm = language_model()
    reward = RewardModel(language_model())
    torch.nn.init.normal_(reward.head.weight)
    reward.normalize(torch.tensor([1.0, 5.0]))   # gain 1/2, shift -3/2
    for name, model, script in (("pretrain", lm, pretrain), ("reward", reward, train_reward)):
        (tmp_path / name).mkdir()
        checkpoint.save(tmp_path / name, name, model, TOKENIZER, script.Config(**SMALL))
    return tmp_path


# ---------------------------------------------------------------- finetune_ppo.py

@pytest.fixture
def finetuned(folder, monkeypatch):
    """Runs two iterations with the flags given; returns what each of them got to see.
    compared: called with what the final comparison is of"""
    def run(compared=lambda *arguments: None, **flags):
        seen = []

        def collect(policy, reference, score, query, config, generator):
            seen.append(SimpleNamespace(
                policy=policy, reference=reference, config=config,
                outputs=[policy(QUERY, RESPONSE) for _ in range(2)], scores=score(QUERY, RESPONSE),
                critic=policy.critic and policy.critic(QUERY, RESPONSE)))
            return real_collect(policy, reference, score, query, config, generator)

        def update(policy, optimizer, memory, config, generator):
            seen[-1].optimizer, seen[-1].episodes = optimizer, len(memory)
            seen[-1].rate = optimizer.param_groups[0]["lr"]
            return real_update(policy, optimizer, memory, config, generator)

        real_collect, real_update = finetune_ppo.collect, finetune_ppo.update
        monkeypatch.setattr(finetune_ppo, "collect", collect)
        monkeypatch.setattr(finetune_ppo, "update", update)
        monkeypatch.setattr(finetune_ppo.comparison, "report", lambda *arguments: compared(*arguments) or "")
        finetune_ppo.main(finetune_ppo.Config(**SMALL | {
            "model": str(folder / "pretrain"), "reward": str(folder / "reward"),
            "out": str(folder / "ppo"), "iterations": 2, "rollout_size": 8, "minibatch_size": 8,
            "response_length": 4, "temperature": 0.5, "lr": 0.01} | flags))
        return seen
    return run


@pytest.mark.parametrize("target, sign", [("positive", 1), ("negative", -1)])
def test_d44_score_and_separate_critic_begin_as_the_reward_model_or_its_negation(
        folder, finetuned, target, sign):
    model = checkpoint.load_reward(folder / "reward")[0]
    expected, scores = (sign * x(QUERY, RESPONSE) for x in (model, frozen(model)))   # a rounding apart
    first, last = finetuned(target=target, separate_critic=True)
    assert torch.equal(first.scores, scores) and torch.equal(first.critic, expected)
    assert torch.equal(last.scores, scores) and not torch.equal(last.critic, expected)   # learns


def test_d40_the_script_trains_the_policy_and_neither_reference_nor_reward(finetuned):
    first, last = finetuned()
    before, after = first.outputs[0][0], last.outputs[0][0]   # log-probabilities
    assert not torch.equal(before, after)
    assert torch.equal(first.reference(QUERY, RESPONSE)[0], before)   # its temperature, too
    assert not any(p.requires_grad for p in first.reference.parameters())
    assert not first.scores.requires_grad
    [group] = first.optimizer.param_groups
    assert list(map(id, group["params"])) == list(map(id, first.policy.parameters()))


def test_d38_the_script_runs_its_policy_without_dropout(finetuned):
    for seen in finetuned():
        for one, other in zip(*seen.outputs):
            assert torch.equal(one, other)


def test_d35_d36_the_script_s_adam_has_eps_1e_5_and_a_rate_that_falls_to_0(finetuned):
    first, last = finetuned()
    assert first.optimizer.param_groups[0]["eps"] == 1e-5
    assert [first.rate, last.rate] == pytest.approx([0.01, 0.005])   # lr (1 - (t - 1) / 2)
    assert last.optimizer.param_groups[0]["lr"] == 0


@pytest.mark.parametrize("schedule, second", [("cosine", 0.005), ("constant", 0.01)])
def test_the_script_s_rate_moves_as_its_schedule_says(finetuned, schedule, second):
    first, last = finetuned(schedule=schedule, iterations=2)
    assert [first.rate, last.rate] == pytest.approx([0.01, second])   # lr (1 + cos(pi / 2)) / 2
    assert last.optimizer.param_groups[0]["lr"] == (0.01 if schedule == "constant" else 0)


def test_d32_each_update_of_the_script_has_the_episodes_of_one_rollout(finetuned):
    assert [seen.episodes for seen in finetuned()] == [8, 8]


@pytest.mark.parametrize("target, second", [(4.0, 0.16), (0.0, 0.2)])
def test_d22_the_script_steers_its_kl_coefficient_if_asked(finetuned, target, second):
    # the first KL is 0: error -0.2, and a horizon of one rollout: 0.2 (1 - 0.2 * 8 / 8)
    seen = finetuned(kl_coef=0.2, kl_target=target, kl_horizon=8.0)
    assert [x.config.kl_coef for x in seen] == pytest.approx([0.2, second])


def test_ppo_samples_from_the_prompts_and_is_judged_on_texts_that_it_never_sees(finetuned, monkeypatch):
    sampled, given, real = [], [], rows.Prompts

    class Prompts(real):
        def __init__(self, texts, *others):
            super().__init__(texts, *others)
            self.texts = texts

        def sample(self, *others):
            sampled.append(self.texts)
            return super().sample(*others)
    monkeypatch.setattr(rows, "Prompts", Prompts)
    finetuned(compared=lambda policy, reference, reward, fresh, *others: given.append(fresh.texts))
    parts = data.split(toy(300))
    assert sampled == [parts["prompts"]] * 2 and given == [parts["test"]]


# ---------------------------------------------------------------- train_reward.py

GOOD_AND_BAD = [Row("0", "good", (1.0,)), Row("1", "bad", (0.0,))]


def test_d13_what_people_preferred_gets_the_higher_score_and_dropout_is_off_again(reward_stage):
    reward, steps = reward_stage(GOOD_AND_BAD, language_model(dropout=0.1), TOKENIZER,
                                 group_size=2, passes=20, lm_coef=0.0, lr=0.02)
    assert steps[-1]["accuracy/train"] == 1 and steps[-1]["loss/reward"] < 0.3
    query, response = data.tensors([([END], TOKENIZER.encode(x) + [END]) for x in ("good", "bad")])
    good, bad = reward(query, response).tolist()
    assert good > bad + 1 and [good, bad] == reward(query, response).tolist()


def test_the_language_modelling_loss_stands_beside_the_preferences(reward_stage, monkeypatch):
    class NoOpinion(RewardModel):   # neither head nor tokens: ln 2 = 0.693147 each
        def __init__(self, lm, spaced):
            super().__init__(lm, spaced)
            torch.nn.init.zeros_(self.head.weight)
    monkeypatch.setattr(train_reward, "RewardModel", NoOpinion)
    lm = language_model()
    torch.nn.init.zeros_(lm.embedding.weight)   # the head, too: ln 257 = 5.549076 per token
    reward, [first] = reward_stage(GOOD_AND_BAD, lm, TOKENIZER, group_size=2, passes=1, lm_coef=0.5)
    assert first["loss/train"] == pytest.approx(4.160832, abs=1e-5)   # 2 ln 2 + ln 257 / 2
    assert first["loss/reward"] == pytest.approx(0.693147, abs=1e-5)
    assert reward.lm.embedding.weight.any()   # a head of 0 leaves it; the language model's loss does not


def test_the_tokens_weights_learn_at_a_rate_of_their_own(reward_stage):
    lm = language_model()
    reward, _ = reward_stage(GOOD_AND_BAD, lm, TOKENIZER, group_size=2, passes=1, lr=0.0, word_lr=0.02)
    assert torch.equal(reward.lm.embedding.weight, lm.embedding.weight)
    # Adam's first step is the rate: "bad" lacks o and g, "good" lacks b and a
    good, bad = (reward.words.single.weight[TOKENIZER.encode(x)[0], 0].item() for x in ("g", "b"))
    assert [good, bad] == pytest.approx([0.02, -0.02], rel=1e-3)


def test_a_word_at_the_start_of_a_text_shares_its_weight_with_the_same_word_after_a_space(reward_stage):
    tokenizer = Tokenizer.train(["film film film"] * 9, 257 + 5)
    [film], [spaced] = tokenizer.encode("film"), tokenizer.encode(" film")
    lm = build(TransformerConfig(tokenizer.vocab_size, tokenizer.end, width=8, heads=1, layers=1, context=64))
    reward, _ = reward_stage(GOOD_AND_BAD, lm, tokenizer, group_size=2, passes=1)
    assert film != spaced and reward.words.spaced[film] == spaced


def test_every_vote_that_is_drawn_is_a_comparison_of_the_same_step(reward_stage, monkeypatch):
    seen, real = [], train_reward.preference_loss

    def preference_loss(chosen, rejected):
        seen.append(len(chosen))
        return real(chosen, rejected)
    monkeypatch.setattr(train_reward, "preference_loss", preference_loss)
    reward_stage(GOOD_AND_BAD, language_model(), TOKENIZER, group_size=2, passes=1, votes=7)
    assert seen == [7, 7]   # one pair of texts seven times, for both opinions


def test_without_the_tokens_weights_the_score_is_the_heads(reward_stage):
    reward, steps = reward_stage(GOOD_AND_BAD, language_model(), TOKENIZER, group_size=2, passes=20,
                                 lm_coef=0.0, lr=0.02, word_lr=0.0)
    query, response = data.tensors([([END], TOKENIZER.encode(x) + [END]) for x in ("good", "bad")])
    assert torch.allclose(reward(query, response), reward.head(reward.lm.states(query, response)[
        torch.arange(2), (response >= 0).sum(1)])[:, 0])
    assert steps[-1]["loss/reward"] < 0.3 and steps[-1]["loss/train"] == steps[-1]["loss/reward"]


def test_the_reward_model_learns_from_its_own_part_and_is_measured_on_held_out_texts(folder, monkeypatch):
    learned, given, normalized, real = [], [], [], data.Comparisons

    class Comparisons(real):
        def groups(self, *others):
            learned.append(self.rated)
            return super().groups(*others)[:1]

    def report(reward, training, groups, held_out, run):
        given.extend([training.rated, held_out.rated])
        return ""
    prompts = train_reward.Prompts
    monkeypatch.setattr(train_reward, "Comparisons", Comparisons)
    monkeypatch.setattr(train_reward, "Prompts", lambda texts, *others: normalized.append(texts)
                        or prompts(texts, *others))
    monkeypatch.setattr(calibration, "report", report)
    train_reward.main(train_reward.Config(**SMALL, model=str(folder / "pretrain"), passes=1,
                                          out=str(folder / "again"), response_length=4))
    parts = data.split(toy(300))
    assert learned == [parts["reward"]] and normalized == [parts["prompts"]]
    assert given == [parts["reward"], parts["prompts"] + parts["test"]]


def test_d14_standardized_ratings_have_mean_0_and_population_deviation_1():
    rows = [Row(x, x, (vote,)) for x, vote in zip("abcd", (1.0, 3.0, 5.0, 7.0))]
    assert data.Comparisons(rows, TOKENIZER, 32).targets().tolist() == pytest.approx(
        [-1.3416408, -0.4472136, 0.4472136, 1.3416408])   # mean 4, variance 5: 3 / sqrt(5)


def test_a_regression_learns_the_standardized_ratings(reward_stage, monkeypatch):
    seen, real = [], train_reward.regression_loss

    def regression_loss(scores, targets):
        seen.append(targets.tolist())
        return real(scores, targets)
    monkeypatch.setattr(train_reward, "regression_loss", regression_loss)
    rows = [Row(x, x, (vote,)) for x, vote in zip("abcd", (1.0, 3.0, 5.0, 7.0))]
    reward_stage(rows, language_model(), TOKENIZER, group_size=4, passes=3, loss="regression")
    assert len(seen) == 6   # a permutation of all four ratings in every pass, for both opinions
    assert all(sorted(x) == pytest.approx([-1.3416408, -0.4472136, 0.4472136, 1.3416408])
               for x in seen)


def test_d16_scores_are_normalized_over_responses_of_the_untouched_language_model(reward_stage, monkeypatch):
    seen, real = [], train_reward.generate

    def generate(lm, query, *others, **more):
        seen.append((lm, len(query)))
        return real(lm, query, *others, **more)
    monkeypatch.setattr(train_reward, "generate", generate)
    pretrained = language_model()
    reward, _ = reward_stage(GOOD_AND_BAD, pretrained, TOKENIZER, group_size=2, passes=2, lr=0.02,
                             normalize_samples=64)
    [(lm, count)] = seen
    weights = pretrained.embedding.weight
    assert count == 64 and torch.equal(lm.embedding.weight, weights)
    assert not torch.equal(reward.lm.embedding.weight, weights)


@pytest.mark.parametrize("ends, counted", [(8, 8), (2, 2), (1, 16), (0, 16)])   # of 16 responses
def test_d16_only_responses_that_end_are_normalized_over_if_there_are_two(ends, counted):
    query, response = torch.ones(16, 1, dtype=torch.long), torch.arange(1, 33).view(16, 2)
    response[:ends, 1] = TOKENIZER.end
    reward = RewardModel(language_model()).eval()
    scoring.normalize(reward, query, response)
    scores = reward(query, response)[:counted]
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-4)


# ---------------------------------------------------------------- pretrain.py

def test_the_held_out_loss_of_a_uniform_model_is_the_logarithm_of_its_vocabulary():
    lm = language_model()
    torch.nn.init.zeros_(lm.embedding.weight)   # ln 257 = 5.549 per token
    line = samples.held_out_loss(lm, [Row("1", "ab"), Row("2", "cdef", prompt="xy")], TOKENIZER)
    # 3 and 5 tokens with their ends, 6 characters, 2 words: 8 * 5.549076 / 6, exp(8 * 5.549076 / 2)
    assert line.startswith("held-out texts: 5.549 nats per token, 7.399 per character, perplexity ")
    assert math.log(int(line.split()[-3])) == pytest.approx(22.196304, abs=1e-4)


def test_pretraining_sees_no_held_out_text_and_measures_without_dropout(folder, monkeypatch):
    seen, real = {}, data.batches

    def train(texts, vocab_size):
        seen["texts"] = list(texts)
        return TOKENIZER

    def batches(examples, *others):
        seen["examples"] = examples
        return real(examples, *others)

    def held_out_loss(lm, rows, tokenizer):
        seen["held out"], seen["dropout"] = rows, lm.training
        return ""
    monkeypatch.setattr(pretrain.Tokenizer, "train", train)
    monkeypatch.setattr(pretrain, "batches", batches)
    monkeypatch.setattr(samples, "held_out_loss", held_out_loss)
    pretrain.main(pretrain.Config(**SMALL, out=str(folder / "again"), width=8, heads=1, layers=1,
                                  passes=1, batch_size=64, samples=1))
    parts = data.split(toy(300))
    learned = parts["reward"] + parts["judge"]
    assert seen["texts"] == [row.text for row in learned]
    assert seen["examples"] == data.encode(learned, TOKENIZER, 128)
    assert seen["held out"] == parts["prompts"] + parts["test"] and seen["dropout"] is False
