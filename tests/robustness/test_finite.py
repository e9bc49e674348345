"""NaN or infinity stops a run before it reaches a weight, and the message says where."""

import copy
from dataclasses import replace

import pytest
import torch

import finetune_ppo
import pretrain
import train_reward
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic, frozen
from minippo.ppo import PPOConfig, collect, update
from minippo.run.checkpoint import load_tensors, save_tensors
from minippo.run.exits import launch
from minippo.tokens import pad_left, pad_right
from minippo.training import NonFiniteError, check_finite, clip_gradients, linear_decay, step

CONFIG = PPOConfig(response_length=6, minibatch_size=2)
NAN = torch.tensor(torch.nan)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_first_that_is_not_finite_is_named(bad):
    check_finite(x=torch.ones(3), y=2.5)
    with pytest.raises(NonFiniteError, match="^here: y is not finite$"):
        check_finite("here: ", x=torch.ones(3), y=torch.tensor([0, bad]), z=torch.tensor(bad))


def test_clipping_names_the_parameter_and_scales_nothing():
    model = torch.nn.Linear(2, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[30.0, 40.0]]), torch.tensor([torch.inf])
    with pytest.raises(NonFiniteError, match="gradient of bias is not finite"):
        clip_gradients(model, 1.0)
    assert model.weight.grad.tolist() == [[30, 40]]


def test_clipping_gives_the_norm_before_and_0_means_never():
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[30.0, 40.0]])
    assert clip_gradients(model, 0) == 50 and model.weight.grad.tolist() == [[30, 40]]
    assert clip_gradients(model, 5.0) == 50
    assert model.weight.grad.tolist() == [[pytest.approx(3), pytest.approx(4)]]


def test_finite_gradients_whose_norm_overflows_are_refused():
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.full((1, 2), 3e38)
    with pytest.raises(NonFiniteError, match="norm of all gradients"):
        clip_gradients(model, 1.0)


def test_a_loss_that_is_not_finite_changes_no_weight():
    model = torch.nn.Linear(2, 1)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    with pytest.raises(NonFiniteError, match="^loss is not finite"):
        step(model, optimizer, linear_decay(optimizer, 3), model(torch.ones(2)).sum() * NAN)
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def rollout(lm, query, score=lambda query, response: torch.ones(len(query))):
    policy = ActorCritic(lm).eval()
    return policy, collect(policy, frozen(policy), score, query, CONFIG, torch.Generator())[0]


def test_a_score_that_is_not_finite_stops_the_rollout(lm, query):
    with pytest.raises(NonFiniteError, match="^rollout: scores is not finite"):
        rollout(lm, query, lambda query, response: torch.tensor([1, torch.nan, 0]))


def test_a_reference_that_is_not_finite_stops_the_rollout(lm, query):
    policy = ActorCritic(lm).eval()
    reference = frozen(policy)
    reference.lm.norm.bias[0] = torch.inf
    with pytest.raises(NonFiniteError, match="^rollout: reference_logprobs is not finite"):
        collect(policy, reference, lambda query, response: torch.ones(len(query)), query, CONFIG)


def test_an_update_stops_before_the_step_and_names_the_minibatch(lm, query):
    policy, episodes = rollout(lm, query)
    memory = PPOMemory()
    memory.store(episodes)
    episodes.returns[:] = torch.nan
    before = copy.deepcopy(policy.state_dict())
    optimizer = torch.optim.Adam(policy.parameters(), 0.1)
    with pytest.raises(NonFiniteError, match="minibatch 0 of the update: ppo/loss/value"):
        update(policy, optimizer, memory, CONFIG)
    assert all(torch.equal(before[name], x) for name, x in policy.state_dict().items())


def test_an_update_names_the_parameter_whose_gradient_is_not_finite(lm, query):
    policy, episodes = rollout(lm, query)
    memory = PPOMemory()
    memory.store(episodes)
    policy.value_head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteError, match="minibatch 0 .*gradient of value_head.weight"):
        update(policy, torch.optim.Adam(policy.parameters(), 0.1), memory, CONFIG)


def test_a_skipped_minibatch_may_overflow(lm, query):
    policy, episodes = rollout(lm, query)
    memory = PPOMemory()
    memory.store(episodes)
    episodes.logprobs -= 100 * episodes.mask   # ratios of e^100: infinite in float32
    stats = update(policy, torch.optim.Adam(policy.parameters(), 0.1), memory, CONFIG)
    assert stats["ppo/skipped"] == 4 and stats["ppo/grad_norm"] == 0   # 2 epochs, 2 minibatches


def test_equal_scores_one_episode_and_empty_responses_are_defined(lm):
    policy, query = ActorCritic(lm).eval(), pad_left([[0, 3]])
    episodes, stats = collect(policy, frozen(policy), lambda query, response: torch.zeros(1), query,
                              PPOConfig(response_length=6, missing_end_score=0.0),
                              torch.Generator())
    assert stats["objective/scores_std"] == 0 and stats["ppo/returns/mean"] == 0
    assert episodes.advantages.abs().max() < 1e-3
    logprobs, values, entropy = policy(query, pad_right([[]]))
    assert logprobs.shape == values.shape == entropy.shape == (1, 0)


TINY = "--data toy --device cpu --precision fp32"


def test_a_stage_leaves_with_status_3_says_where_and_keeps_what_was_there(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    launch(pretrain.main, pretrain.Config, "", f"{TINY} --passes 1 --width 16 --heads 2 --layers 1 "
        "--vocab-size 300 --batch-size 256".split())
    launch(train_reward.main, train_reward.Config, "", f"{TINY} --passes 1 --group-size 512".split())
    path = tmp_path / "runs" / "reward" / "model.pt"
    huge = torch.tensor(1e30)   # a finite weight whose scores are not: 1e60
    weights = load_tensors(path)
    save_tensors(path, weights | {"gain": huge, "head.bias": huge.expand(1).clone()})
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        launch(finetune_ppo.main, finetune_ppo.Config, "",
            f"{TINY} --iterations 2 --rollout-size 8 --minibatch-size 8".split())
    assert left.value.code == 3
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: iteration 0: rollout: scores is not finite")
    assert message.endswith("train again with a lower --lr and --overwrite")


def test_a_model_that_has_gone_wrong_in_its_last_step_is_not_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        launch(pretrain.main, pretrain.Config, "", f"{TINY} --passes 1 --width 16 --heads 2 "
            "--layers 1 --vocab-size 300 --batch-size 100000 --warmup 0 --lr 1e9".split())
    assert left.value.code == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: sampling: probabilities is not finite")
    assert not (tmp_path / "runs/pretrain/model.pt").exists()


def test_a_policy_that_is_not_finite_stops_the_rollout(lm, query):
    policy = ActorCritic(lm).eval()
    reference = frozen(policy)
    with torch.no_grad():
        lm.norm.bias[0] = torch.nan
    with pytest.raises(NonFiniteError, match="^sampling: probabilities is not finite"):
        collect(policy, reference, lambda query, response: torch.ones(len(query)), query, CONFIG)


def test_an_update_on_empty_responses_alone_changes_nothing(lm, query):
    policy, episodes = rollout(lm, query)
    memory = PPOMemory()
    memory.store(replace(episodes, **{name: x[:, :0] for name, x in vars(episodes).items()
                                      if name != "query"}))
    before = copy.deepcopy(policy.state_dict())
    update(policy, torch.optim.SGD(policy.parameters(), 0.1), memory, CONFIG)
    assert all(torch.equal(before[name], x) for name, x in policy.state_dict().items())
