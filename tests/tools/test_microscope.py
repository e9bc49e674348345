"""One update under the microscope: its numbers per token are the update's own, and add up to what it logs."""

import copy
import importlib
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch

import finetune_ppo
import train_reward
from minippo import ppo
from minippo.corpora.toy import toy
from minippo.memory import PPOMemory, Rollout
from minippo.policy import ActorCritic
from minippo.reward import RewardModel
from minippo.run import checkpoint
from minippo.run.exits import launch
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD, pad_left, pad_right
from minippo.tools.microscope import Config, agreement, chosen, looks_of, main, shown
from minippo.tools.shared import page, runs
from minippo.tools.shared.look import look, state_of
from minippo.transformer import TransformerConfig, build
from tests.robustness.posix import posix

QUERY = pad_left([[0, 3, 4, 5], [0, 6], [0, 7, 8]] * 3)   # 9 queries


def score(query, response):
    """What a response is worth here: half a point for each token 3."""
    return (response == 3).sum(1) / 2


def seen(lm, critic=None, lr=0.01, **flags):
    """A Look at an update of this language model from a policy that is some way from its reference, and the
    policies before and after it."""
    config = ppo.PPOConfig(**{"response_length": 5, "minibatch_size": 9, "epochs": 2, "kl_coef": 0.3,
                              "missing_end_score": 0.0} | flags)
    torch.manual_seed(1)
    reference = ActorCritic(lm, temperature=0.9).reference()
    policy = ActorCritic(copy.deepcopy(lm), critic, temperature=0.9).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.03 * torch.randn(parameter.shape)
    before = copy.deepcopy(policy)
    found = look(policy, reference, score, QUERY, config, lr, torch.Generator().manual_seed(0))
    return found, reference, before, policy


@pytest.mark.parametrize("critic", ["head", "separate"])
def test_the_numbers_of_all_tokens_add_up_to_what_was_logged(lm, critic):
    found, *_ = seen(lm, RewardModel(copy.deepcopy(lm)) if critic == "separate" else None)
    x, mask, rows = found.numbers, found.rollout.mask, len(QUERY)
    again = {"objective/kl": x["kl"][0].sum().item() / rows,
             "objective/rlhf_reward": x["rewards"][0].sum().item() / rows,
             "ppo/returns/mean": x["returns"][0][mask].mean().item(),
             "ppo/val/mean": x["values"][0][mask].mean().item()}
    assert again == pytest.approx({key: found.collected[key] for key in again}, abs=1e-5)
    assert min(map(abs, again.values())) > 1e-3   # nothing is 0 = 0
    added = found.added()
    assert added == pytest.approx({key: found.collected[key] for key in added}, abs=1e-5)
    # what PPO pays: its score, less 0.3 for each nat of the response
    assert x["rewards"][0].sum(1).tolist() == pytest.approx(
        (found.scores - 0.3 * x["kl"][0].sum(1)).tolist(), abs=1e-5)


def test_ratio_and_clip_fraction_before_an_epoch_of_one_minibatch_are_those_it_logged(lm):
    found, *_ = seen(lm, lr=0.03, epochs=3)   # the minibatch is the rollout, seen before its step
    for epoch, learned in enumerate(found.learned):
        assert found.means("ratio")[epoch] == pytest.approx(learned["ppo/policy/ratio"], abs=1e-5)
        assert found.means("clipped")[epoch] == pytest.approx(learned["ppo/policy/clipfrac"], abs=1e-6)
    assert found.means("ratio")[0] == pytest.approx(1, abs=1e-6) and found.means("clipped")[0] == 0
    assert found.means("clipped")[1] > 0.05 and len(found.means("clipped")) == 4


@pytest.mark.parametrize("flags", [{}, {"early_stop_kl": 1e-4}, {"max_ratio": 1.0001}],
                         ids=["all epochs", "stopped", "skipped"])
def test_an_epoch_at_a_time_is_the_update_of_all_epochs(lm, flags):
    found, reference, policy, after = seen(lm, epochs=3, minibatch_size=4, **flags)   # 9 = 4 + 4 + 1
    generator = torch.Generator().manual_seed(0)
    rollout, collected = ppo.collect(policy, reference, score, QUERY, found.config, generator)
    memory = PPOMemory()
    memory.store(rollout)
    optimizer = torch.optim.Adam(policy.parameters(), 0.01, eps=1e-5, fused=True)
    learned = ppo.update(policy, optimizer, memory, found.config, generator)
    assert collected == found.collected and torch.equal(rollout.response, found.rollout.response)
    for key, x in policy.state_dict().items():
        assert torch.equal(x, after.state_dict()[key]), key
    events = {key: sum(epoch[key] for epoch in found.learned) for key in ("ppo/early_stops", "ppo/skipped")}
    assert events == {key: learned[key] for key in events}
    assert len(found.learned) == (1 if "early_stop_kl" in flags else 3)
    assert events["ppo/early_stops"] == ("early_stop_kl" in flags)
    assert (events["ppo/skipped"] > 0) == ("max_ratio" in flags)
    if len(found.learned) == 3:   # epochs of as many minibatches each: the mean of means is the mean
        mean = sum(epoch["ppo/loss/policy"] for epoch in found.learned) / 3
        assert mean == pytest.approx(learned["ppo/loss/policy"], abs=1e-6)


def test_the_last_state_is_that_of_the_policy_after_the_update(lm):
    found, _, before, after = seen(lm)
    for epoch, policy in (0, before), (2, after):
        with torch.no_grad():
            logprobs, values, _ = policy(QUERY, found.rollout.response)
        torch.testing.assert_close(found.numbers["logprobs"][epoch], logprobs, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.numbers["values"][epoch], values, rtol=0, atol=1e-5)
    assert not torch.allclose(found.numbers["logprobs"][0], found.numbers["logprobs"][2], atol=1e-3)


def test_shapes_and_zeros_at_pad(lm):
    found, *_ = seen(lm)
    shape = found.rollout.response.shape
    moving = {key for key, x in found.numbers.items() if len(x) == 3}
    assert moving == {"logprobs", "values", "ratio", "clipped", "share"}
    for key, x in found.numbers.items():
        assert x.shape == (3 if key in moving else 1, *shape), key
        assert (x[:, ~found.rollout.mask] == 0).all() and (~found.rollout.mask).any(), key


def test_surprises_add_up_to_advantages_and_these_to_returns(lm):
    found, *_ = seen(lm, gamma=0.9, lam=0.8)
    x = {key: states[0] for key, states in found.numbers.items()}
    later, expected = (torch.nn.functional.pad(x[key], (0, 1))[:, 1:] for key in ("advantages", "values"))

    def same(one, other):
        torch.testing.assert_close(one * found.rollout.mask, other * found.rollout.mask, rtol=0, atol=1e-5)
    same(x["delta"], x["advantages"] - 0.72 * later)   # 0.9 * 0.8
    same(x["delta"], x["rewards"] + 0.9 * expected - x["values"])
    same(x["returns"], x["advantages"] + x["values"])
    whitened = x["whitened"][found.rollout.mask]
    assert whitened.mean().item() == pytest.approx(0, abs=1e-5)
    assert whitened.square().mean().item() == pytest.approx(1, abs=1e-3)


def test_ratio_clipped_and_share_by_hand():
    # ratios 1.5, 1.5, 0.5, 0.5, 1 with advantages 1, -1, -1, 1, 0: the first and the third are past
    # 1 +- 0.2 on the side that pays; the others pull by A rho = -1.5, 0.5, 0. Mean size of the five: 2 / 5
    ratios, advantages = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1, 1]]), torch.tensor([[1.0, -1, -1, 1, 0, 0]])
    response = torch.tensor([[1, 2, 3, 4, 0, PAD]])
    mask, old = response != PAD, torch.full((1, 6), -2.0).masked_fill(response == PAD, 0)
    empty = torch.zeros(1, 6)
    rollout = Rollout(QUERY[:1], response, mask, old, old, empty, empty, advantages, empty)

    def policy(query, response):
        return (old + ratios.log())[:, :response.shape[1]], *(0.25 * (response != PAD) for _ in range(2))
    found = {key: x[0].tolist() for key, x in state_of(policy, rollout, ppo.PPOConfig()).items()}
    assert found["ratio"] == pytest.approx([1.5, 1.5, 0.5, 0.5, 1, 0])
    assert found["clipped"] == [1, 0, 1, 0, 0, 0]
    assert found["share"] == pytest.approx([0, -3.75, 0, 1.25, 0, 0])
    assert found["values"] == [0.25] * 5 + [0]


@pytest.mark.parametrize("count, places", [
    (1, [3]), (2, [3, 1]), (3, [3, 4, 1]), (4, [3, 0, 2, 1]), (5, [3, 0, 4, 2, 1]), (9, [3, 0, 4, 2, 1])])
def test_responses_are_chosen_at_evenly_spaced_ranks(count, places):
    # ranks of 4: round(i 4 / 3) = 0, 1, 3, 4
    assert chosen(torch.tensor([2.0, -1.0, 0.0, 3.0, 1.0]), count) == places


# ---------------------------------------------------------------- runs in folders

@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([row.text for row in toy(300)], 280)


@pytest.fixture
def saved(tmp_path, tokenizer):
    """Makes the folders of three finished stages, of random weights; returns that of stage 3."""
    def make(architecture="decoder", **flags):
        def lm(seed, std=0.2, width=8):
            torch.manual_seed(seed)
            model = build(TransformerConfig(tokenizer.vocab_size, tokenizer.end, architecture, width=width,
                                            heads=2, layers=1, context=32))
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=std)
            return model
        model, reward, out = (str(tmp_path / name) for name in ("pretrain", "reward", "ppo"))
        config = finetune_ppo.Config(**{
            "data": "toy", "model": model, "reward": reward, "out": out, "response_length": 6, "lr": 3e-3,
            "device": "cpu", "rollout_size": 16, "minibatch_size": 8, "precision": "fp32", "seed": 3,
            "iterations": 2} | flags)
        reward_model = RewardModel(lm(1))
        critic = copy.deepcopy(reward_model) if config.separate_critic else None
        checkpoint.save(model, "pretrain", lm(0), tokenizer, config)
        checkpoint.save(reward, "reward", reward_model, tokenizer, train_reward.Config(model=model))
        checkpoint.save(out, "ppo", ActorCritic(lm(2), critic, config.temperature), tokenizer, config)
        (tmp_path / "ppo/metrics.jsonl").write_text('{"iteration": 0, "objective/kl_coef": 0.2}\n')
        checkpoint.save(tmp_path / "wide", "pretrain", lm(0, width=10), tokenizer, config)
        return out
    return make


@pytest.mark.parametrize("architecture, flags", [
    ("decoder", {}), ("seq2seq", {"target": "negative", "separate_critic": True}),
    ("decoder", {"separate_critic": True, "whiten_rewards": True}), ("seq2seq", {"epochs": 1})])
def test_both_updates_of_a_run_add_up_whatever_it_is_made_of(saved, architecture, flags):
    run = saved(architecture, **flags)
    looks, _, settings = looks_of(Config(device="cpu"), run)
    reward_model, _ = checkpoint.load_reward(settings.reward)
    sign = -1 if flags.get("target") == "negative" else 1
    for name, found in looks.items():
        assert found.added() == pytest.approx({key: found.collected[key] for key in found.added()}, abs=1e-5)
        query, response = found.rollout.query, found.rollout.response
        with torch.no_grad():
            scores = sign * reward_model(query, response)
            first = sign * reward_model.prefix_scores(query, response)[:, 0]   # what the critic begins as
        assert found.scores.tolist() == pytest.approx(scores.tolist(), abs=1e-5)
        assert len(found.learned) == flags.get("epochs", 2)
        if name == "start":
            critic = first.tolist() if "separate_critic" in flags else [0] * 16
            assert found.numbers["values"][0][:, 0].tolist() == pytest.approx(critic, abs=1e-5)
    assert list(looks) == ["start", "finished"]
    assert looks["start"].collected["objective/kl"] == 0 != looks["finished"].collected["objective/kl"]
    assert torch.equal(looks["start"].rollout.query, looks["finished"].rollout.query)


def test_what_is_asked_for_goes_before_the_run_s_own_settings(saved):
    run = saved()
    looks, _, settings = looks_of(Config(policy="start", rollout_size=5, lr=0.5, device="cpu"), run)
    assert list(looks) == ["start"] and len(looks["start"].rollout) == 5 and settings.lr == 0.5


def test_a_run_that_steered_its_kl_goes_on_with_the_coefficient_it_had_come_to(saved, tmp_path):
    run = saved(kl_target=3.0)
    lines = [json.dumps({"iteration": i, "objective/kl_coef": x}) + "\n" for i, x in enumerate([0.2, 0.37])]
    (tmp_path / "ppo/metrics.jsonl").write_text("".join(lines))
    looks, *_ = looks_of(Config(device="cpu"), run)
    assert [x.collected["objective/kl_coef"] for x in looks.values()] == [0.2, 0.37]


def test_the_page_holds_the_numbers_of_the_chosen_and_the_means_of_all(saved, tmp_path, capsys):
    run, out = saved(), tmp_path / "page.html"
    main(Config(run=(run,), responses=3, device="cpu", out=str(out)))
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"the run's first update: 16 responses, [\d,]+ tokens; "
                        r"after it [\d.]+% of the tokens are clipped", said[0])
    assert said[1].startswith("  Begun as the run's iteration 0, but 21 of 22 numbers are not those of its ")
    assert said[2].startswith("one more update, after training: 16 responses, ")
    assert said[3:] == [f"written: {out}"]
    given = parsed(out.read_text(encoding="utf-8")).looks
    looks, *_ = looks_of(Config(device="cpu"), run)
    for name, found in looks.items():
        x, rows = given[name], given[name]["rows"]
        assert x["size"] == 16 and x["tokens"] == found.rollout.mask.sum()
        assert x["collected"] == found.collected and x["learned"] == found.learned
        assert x["means"]["ratio"] == found.means("ratio")
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
        assert rows[0]["score"] == found.scores.max() and rows[2]["score"] == found.scores.min()
        best = int(found.scores.argmax())
        length = int(found.rollout.mask[best].sum())
        assert len(rows[0]["tokens"]) == length
        for key, states in rows[0]["numbers"].items():
            expected = found.numbers[key][:, best, :length].tolist()
            assert states == [pytest.approx(state, rel=1e-5, abs=1e-8) for state in expected], key


@pytest.mark.parametrize("architecture, flags", [
    ("decoder", {"separate_critic": True, "whiten_rewards": True}), ("seq2seq", {"target": "negative"})])
def test_the_page_s_numbers_add_up_to_the_first_row_of_a_real_run_s_metrics(
        saved, tmp_path, capsys, architecture, flags):
    run, out = saved(architecture, **flags), tmp_path / "page.html"
    finetune_ppo.main(finetune_ppo.Config(**runs.settings(run), out=run, overwrite=True))
    main(Config(run=(run,), policy="start", responses=16, out=str(out)))
    x = parsed(out.read_text(encoding="utf-8")).looks["start"]
    row = json.loads((tmp_path / "ppo/metrics.jsonl").read_text().splitlines()[0])
    numbers = {key: [y["numbers"][key][0] for y in x["rows"]]
               for key in ("kl", "rewards", "returns", "values")}
    tokens = sum(len(y["tokens"]) for y in x["rows"])
    again = {"objective/scores": sum(y["score"] for y in x["rows"]) / 16,
             "objective/paid": sum(y["paid"] for y in x["rows"]) / 16,
             "objective/kl": sum(map(sum, numbers["kl"])) / 16,
             "objective/rlhf_reward": sum(map(sum, numbers["rewards"])) / 16,
             "ppo/returns/mean": sum(map(sum, numbers["returns"])) / tokens,
             "ppo/val/mean": sum(map(sum, numbers["values"])) / tokens,
             "tokens/responses_len_mean": tokens / 16}
    assert again == pytest.approx({key: row[key] for key in again}, rel=1e-4, abs=1e-5)
    assert x["logged"] == pytest.approx({key: row[key] for key in x["logged"]}, rel=1e-4, abs=1e-6)
    assert len(x["logged"]) == 22 and x["record"] == row and x["logged"]["ppo/policy/approxkl"] > 0
    said = ("It is the run's own iteration 0: its 22 numbers are, to a thousandth, those of that row of "
            "metrics.jsonl.")
    assert x["says"] == said and said in capsys.readouterr().out


def test_numbers_that_are_not_the_record_s_are_named():
    assert agreement({"a": 1.0005, "b": 0.0}, {"a": 1.0, "b": 0.0}).startswith(
        "It is the run's own iteration 0: its 2")
    for row, there in ({"a": 1.0021, "b": 0}, "1.0021"), ({"a": None, "b": 0}, "None"), ({"b": 0}, "None"):
        assert (f"but 1 of 2 numbers are not those of its row of metrics.jsonl: a is 1, there {there}. "
                in agreement({"a": 1.0, "b": 0.0}, row))


# ---------------------------------------------------------------- the page

class Parsed(HTMLParser):
    """Which elements a page has, and the JSON in it."""
    def __init__(self):
        super().__init__()
        self.tags, self.looks, self.text, self.inside = [], None, [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = dict(attributes).get("id", tag)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, text):
        if self.inside == "looks":
            self.looks = json.loads(text)
        self.text.append(text)


def parsed(text):
    found = Parsed()
    found.feed(text)
    return found


def test_hostile_text_is_text(lm):
    hostile = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "&lt;b&gt;",
               "\x1b[31m", "\u202eabc", "a\nb"]
    found, *_ = seen(lm)
    found.rollout.response = pad_right([[1, 2, 3, 4, 5, 6, 7]] * 9)
    found.rollout.mask = torch.ones(9, 7, dtype=torch.bool)
    found.numbers = {key: torch.zeros(1, 9, 7) for key in found.numbers}
    fake = SimpleNamespace(end=0, decode=lambda ids: "".join(hostile[i - 1] for i in ids if 0 < i < 8))
    given = shown(found, fake, 2, "<b>title</b>")
    again = parsed(page.page("<i>", "", "microscope", looks={"start": given}))
    assert again.tags.count("script") == 2 and not {"img", "b", "i"} & set(again.tags)
    row = again.looks["start"]["rows"][0]
    assert row["tokens"] == [*hostile[:4], "\\x1b[31m", "\\u202eabc", "a\\nb"]
    script = page.asset("microscope.js")   # a text becomes a child, never markup
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(|https?:", script)


@posix
def test_a_run_s_name_is_text(saved, tmp_path):
    saved()
    folder, out = (tmp_path / "ppo").rename(tmp_path / "<img src=x>"), tmp_path / "page.html"
    main(Config(run=(str(folder),), policy="start", rollout_size=4, device="cpu", out=str(out)))
    found = parsed(out.read_text(encoding="utf-8"))
    assert "img" not in found.tags and str(folder) in "".join(found.text)


def test_every_quantity_of_the_page_is_one_that_is_computed_by_a_function_that_is_there(lm):
    found, *_ = seen(lm, epochs=1)
    listed = re.findall(r'^  \["(\w+)", "(\w+)", "[^"]+", .*?"((?:ppo|policy)\.[\w.]+)"\],$',
                        page.asset("microscope.js"), re.M | re.S)
    assert {key for key, _, _ in listed} == found.numbers.keys() and len(listed) == 12
    assert {group for _, group, _ in listed} == {"sampled", "paid", "judged", "learned"}
    for _, _, name in listed:
        module, *path = name.split(".")
        thing = importlib.import_module(f"minippo.{module}")
        for part in path:
            thing = getattr(thing, part)
        assert callable(thing), name


# ---------------------------------------------------------------- mistakes

def refused(tmp_path, *arguments, status=2):
    out = str(tmp_path / "page.html")
    with pytest.raises(SystemExit) as left:
        launch(main, Config, "", [*map(str, arguments), "--device", "cpu", "--out", out])
    assert left.value.code == status and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("run, message", [
    ("pretrain", "holds the model of pretrain.py; needed is one of finetune_ppo.py"),
    ("reward", "holds the model of train_reward.py; needed is one of finetune_ppo.py"),
    ("none", "no trained model here (no config.json); run the script that makes it "
             "(pretrain.py or train_reward.py or finetune_ppo.py), or name its folder")])
def test_what_is_no_run_of_stage_3_is_named(saved, tmp_path, capsys, run, message):
    saved()
    refused(tmp_path, tmp_path / run)
    assert capsys.readouterr() == ("", f"error: {tmp_path / run}: {message}\n")


def test_a_run_that_is_not_finished_is_to_be_gone_on_with(tmp_path, capsys):
    (tmp_path / "state.pt").write_bytes(b"")
    refused(tmp_path, tmp_path)
    assert "a run that was stopped; go on with it, by --resume, first" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model", "reward"])
def test_a_model_that_has_gone_can_be_named(saved, tmp_path, capsys, name):
    run, gone = saved(), tmp_path / {"model": "pretrain", "reward": "reward"}[name]
    gone.rename(tmp_path / "moved")
    refused(tmp_path, run)
    said = f"error: {gone}: no model, and {run} was made from it; give --{name} FOLDER\n"
    assert capsys.readouterr() == ("", said)
    (tmp_path / "elsewhere").mkdir()   # of the same last name: no note that the reward model is another's
    moved = (tmp_path / "moved").rename(tmp_path / "elsewhere" / gone.name)
    looks, *_ = looks_of(Config(**{name: str(moved)}, policy="start", rollout_size=2, device="cpu"), run)
    assert len(looks["start"].rollout) == 2


def test_a_model_of_another_shape_is_not_the_run_s(saved, tmp_path, capsys):
    refused(tmp_path, saved(), "--model", tmp_path / "wide")
    assert "wide: not the model that" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name, value, reason", [
    ("kl_coef", None, "kl_coef None is no float"), ("lr", "fast", "lr 'fast' is no float"),
    ("epochs", 1.5, "epochs 1.5 is no int"), ("target", "up", "target 'up' is not positive or negative"),
    ("rollout_size", 0, "rollout_size 0 is not at least 2"), ("rollout_size", -3, "-3 is not at least 2"),
    ("minibatch_size", 0, "is not at least 1"), ("lr", -1, "lr -1 is not at least 0"),
    ("shortest_prompt", 9, "--shortest-prompt 9 is longer than --longest-prompt 8"),
    ("epochs", 0, "epochs 0 is not at least 1"),
    ("precision", "x", "precision 'x' is not auto or bf16 or fp32"),
    ("separate_critic", 1, "separate_critic 1 is no bool"), ("epochs", True, "epochs True is no int"),
    ("lr", float("nan"), "lr nan is not from 0 to 1000000000"), ("lr", 10**400, "int too large")])
def test_settings_that_no_flag_gives_are_named(saved, tmp_path, capsys, name, value, reason):
    saved()
    path = tmp_path / "ppo/config.json"
    about = json.loads(path.read_text())
    about["settings"][name] = value
    path.write_text(json.dumps(about))
    refused(tmp_path, tmp_path / "ppo")
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'ppo'}/config.json: no settings of finetune_ppo.py (")
    assert reason in said and said.count("\n") == 1


def test_a_setting_that_is_missing_is_named(saved, tmp_path, capsys):
    saved()
    path = tmp_path / "ppo/config.json"
    about = json.loads(path.read_text())
    del about["settings"]["separate_critic"]
    path.write_text(json.dumps(about))
    refused(tmp_path, tmp_path / "ppo")
    assert "/config.json: no setting separate_critic; of another version" in capsys.readouterr().err


def test_one_run_at_a_time(tmp_path, capsys):
    refused(tmp_path, "a", "b")
    assert capsys.readouterr().err == "error: 2 folders; name one run of stage 3\n"


def test_an_update_that_meets_nan_leaves_with_status_3_and_no_page(saved, tmp_path, capsys):
    refused(tmp_path, saved(), "--lr", "1e9", status=3)
    assert "is not finite" in capsys.readouterr().err


def test_a_last_step_to_nan_leaves_with_status_3_and_no_page(saved, tmp_path, capsys):
    refused(tmp_path, saved(epochs=1, minibatch_size=16), "--lr", "1e9", status=3)   # no step after it
    said = capsys.readouterr().err
    assert re.search(r"error: after the update: mean \w+ is not finite; train again with a lower --lr$", said)
