"""Stage 3: PPO. The policy writes, the reward model scores, the policy learns -> runs/ppo/"""

import copy
from dataclasses import dataclass, replace

import torch

from minippo import checkpoint, data
from minippo.config import StageConfig, option, run
from minippo.errors import UserError
from minippo.memory import PPOMemory
from minippo.metrics import Metrics
from minippo.policy import ActorCritic, frozen
from minippo.ppo import AdaptiveKL, PPOConfig, collect, update
from minippo.resume import resumable
from minippo.tools import comparison
from minippo.training import linear_decay, start, use_bf16


@dataclass
class Config(PPOConfig, StageConfig):
    out: str = option("runs/ppo", "folder to write")
    model: str = option("runs/pretrain", "folder of the pretrained model to start from")
    reward: str = option("runs/reward", "folder of the reward model")
    target: str = option("positive", "seek high or low scores", choices=("positive", "negative"))
    iterations: int = option(60, "rollouts with an update each", low=1)
    rollout_size: int = option(256, "responses per iteration", low=2)
    temperature: float = option(0.8, "of the policy, in sampling and log-probabilities", low=0.01)
    shortest_prompt: int = option(2, "tokens of a held-out text given as prompt: at least", low=1)
    longest_prompt: int = option(8, "and at most", low=1)
    lr: float = option(1e-4, "learning rate, falling to 0; 1e-5 (large models) to 1e-3", low=0)
    separate_critic: bool = option(False, "a critic apart, begun as a copy of the reward model")
    adaptive_kl: bool = option(False, "steer kl-coef so that the KL meets kl-target")
    kl_target: float = option(6.0, "of --adaptive-kl: nats per response", low=0.01)
    kl_horizon: float = option(10_000.0, "of --adaptive-kl: episodes; larger is gentler", low=1)


SIGNS = {"positive": 1, "negative": -1}
SHOWN = {"score": "objective/scores", "KL": "objective/kl",
         "length": "tokens/responses_len_mean", "ended": "tokens/ended"}


def main(config):
    device, generator, parts, folder = start(config)
    policy, reward, tokenizer = load(config, device)
    reference = frozen(ActorCritic(policy.lm, temperature=config.temperature)).to(device)
    sign = SIGNS[config.target]
    optimizer = torch.optim.Adam(policy.parameters(), config.lr, eps=1e-5, fused=True)
    schedule = linear_decay(optimizer, config.iterations)
    room = policy.lm.config.context - config.response_length
    prompts, fresh = (data.Prompts(parts[name], tokenizer, config.shortest_prompt,
                                   config.longest_prompt, room) for name in ("prompts", "test"))
    steering = AdaptiveKL(config.kl_coef, config.kl_target, config.kl_horizon)
    memory, metrics = PPOMemory(), Metrics(folder, config.iterations, SHOWN)

    def score(query, response):
        return sign * reward(query, response)

    origin = parts, reward, policy, device, policy.lm.bf16
    with resumable(config, folder, config.iterations, generator, origin, model=policy,
                   optimizer=optimizer, schedule=schedule, steering=steering,
                   metrics=metrics) as iterations:
        for iteration in iterations:
            ppo = replace(config, kl_coef=steering.kl_coef)
            query = prompts.sample(config.rollout_size, generator, device)
            rollout, seen = collect(policy, reference, score, query, ppo, generator)
            memory.clear()
            memory.store(rollout)
            learned = update(policy, optimizer, memory, ppo, generator)
            schedule.step()
            if config.adaptive_kl:
                steering.update(seen["objective/kl"], len(memory))
            metrics.log(iteration, seen | learned, int(rollout.mask.sum()))
    metrics.close()
    print(comparison.report(policy, reference, reward, fresh, parts, tokenizer, config, folder))
    checkpoint.save(folder, "ppo", policy, tokenizer, config)


def load(config, device):
    """The policy, made of the pretrained model, the frozen reward model, and their Tokenizer."""
    if config.minibatch_size > config.rollout_size:
        raise UserError(f"--minibatch-size {config.minibatch_size} is larger than --rollout-size "
                        f"{config.rollout_size}; lower it")
    lm, tokenizer = checkpoint.load_lm(config.model)
    reward, reward_tokenizer = checkpoint.load_reward(config.reward)
    if reward_tokenizer.bpe.to_str() != tokenizer.bpe.to_str():
        raise UserError(f"{config.reward} was trained with another tokenizer than {config.model}; "
                        "run train_reward.py --model on the same folder")
    if reward.lm.config.context < lm.config.context:
        raise UserError(f"{config.reward} has a smaller context than {config.model}; "
                        "run train_reward.py --model on the same folder")
    if config.adaptive_kl and not (config.kl_coef and config.kl_horizon >= config.rollout_size):
        raise UserError("--adaptive-kl needs --kl-coef above 0 and --kl-horizon at least a rollout")
    lm.bf16 = reward.lm.bf16 = use_bf16(config.precision, device)
    critic = separate_critic(reward, SIGNS[config.target]) if config.separate_critic else None
    policy = ActorCritic(lm, critic, config.temperature).to(device)
    return policy.eval(), frozen(reward).to(device), tokenizer   # no dropout: the ratio begins at 1


def separate_critic(reward, sign):
    """A trainable copy of the reward model, its values in the units and direction of the score."""
    critic = copy.deepcopy(reward).requires_grad_(True)
    critic.gain *= sign
    critic.shift *= sign
    return critic


if __name__ == "__main__":
    run(main, Config, __doc__)
