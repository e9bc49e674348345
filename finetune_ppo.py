"""Stage 3: PPO. The policy writes, the reward model scores, the policy learns -> runs/ppo/"""

import copy
from dataclasses import dataclass, replace

import torch

from minippo.data import Prompts
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic, frozen
from minippo.ppo import AdaptiveKL, PPOConfig, collect, update
from minippo.run import checkpoint, rows
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import DATA, MODEL, RUN, StageConfig, option
from minippo.run.stage import Run
from minippo.tools import report
from minippo.tools.shared import comparison
from minippo.training import linear_decay


@dataclass
class Config(PPOConfig, StageConfig):
    GROUP = "PPO"
    out: str = option("runs/ppo", "folder to write the run to", group=RUN)
    model: str = option("runs/pretrain", "folder of the pretrained model to start from", group=MODEL)
    reward: str = option("runs/reward", "folder of the reward model", group=MODEL)
    separate_critic: bool = option(False, "train a critic apart, begun as the reward model", group=MODEL)
    temperature: float = option(0.8, "temperature of sampling and of all log-probs", low=0.01, group=MODEL)
    shortest_prompt: int = option(2, "fewest tokens of a held-out text given as prompt", low=1, group=DATA)
    longest_prompt: int = option(8, "most tokens of a held-out text given as prompt", low=1, group=DATA)
    target: str = option("positive", "seek high scores, or low ones", choices=("positive", "negative"))
    iterations: int = option(60, "rollouts, each followed by an update", low=1)
    rollout_size: int = option(256, "responses per iteration", low=2)
    lr: float = option(1e-4, "learning rate, falling to 0; 1e-5 (large models) to 1e-3", low=0)
    kl_target: float = option(0.0, "steer --kl-coef until KL is so many nats per response; 0 = off", low=0)
    kl_horizon: float = option(1e4, "responses in which --kl-target moves --kl-coef by up to a fifth", low=1)

    def __post_init__(self):
        super().__post_init__()
        if self.shortest_prompt > self.longest_prompt:
            raise UserError(f"--shortest-prompt {self.shortest_prompt} is longer than --longest-prompt "
                            f"{self.longest_prompt}; swap them")
        if self.minibatch_size > self.rollout_size:
            raise UserError(f"--minibatch-size {self.minibatch_size} is larger than --rollout-size "
                            f"{self.rollout_size}; lower it")
        if self.kl_target and not (self.kl_coef and self.kl_horizon >= self.rollout_size):
            raise UserError("--kl-target needs --kl-coef above 0 and --kl-horizon at least a rollout")


SIGNS = {"positive": 1, "negative": -1}
SHOWN = {"score": "objective/scores", "KL": "objective/kl",
         "length": "tokens/responses_len_mean", "ended": "tokens/ended"}


def main(config):
    with Run(config, SHOWN) as run:
        policy, reward_model, tokenizer = load(config, run)
        reference = policy.reference()
        room = policy.lm.config.context - config.response_length
        parts = rows.fitting(run.rows, tokenizer, prompts=room, test=room)
        prompts, fresh = (Prompts(part, tokenizer, config.shortest_prompt, config.longest_prompt, room)
                          for part in parts.values())
        optimizer = torch.optim.Adam(policy.parameters(), config.lr, eps=1e-5, fused=True)
        schedule = linear_decay(optimizer, config.iterations)
        controller = AdaptiveKL(config.kl_coef, config.kl_target, config.kl_horizon)
        memory = PPOMemory()

        def score(query, response):
            return SIGNS[config.target] * reward_model(query, response)

        for _ in run.iterations(config.iterations, policy=policy, optimizer=optimizer, schedule=schedule,
                                controller=controller):
            # 1. The policy answers; reference and reward model judge every answer.
            ppo_config = replace(config, kl_coef=controller.kl_coef)
            query = prompts.sample(config.rollout_size, run.generator, run.device)
            rollout, seen = collect(policy, reference, score, query, ppo_config, run.generator)
            # 2. Policy and critic learn from the answers, in epochs of minibatches.
            memory.clear()
            memory.store(rollout)
            learned = update(policy, optimizer, memory, ppo_config, run.generator)
            # 3. Smaller steps next time; KL above --kl-target makes KL dearer, below it cheaper.
            schedule.step()
            controller.update(seen["objective/kl"], len(memory))
            run.log(seen | learned, tokens=int(rollout.mask.sum()))
        print(comparison.report(policy, reference, reward_model, fresh, run, tokenizer))
        report.add_to(run)
        run.finish("ppo", policy, tokenizer)


def load(config, run):
    """The policy, made of the pretrained model, the frozen reward model, and their Tokenizer."""
    lm, reward_model, tokenizer = checkpoint.load_both(config.model, config.reward)
    run.place(reward_model)
    critic = critic_from(reward_model, SIGNS[config.target]) if config.separate_critic else None
    policy = run.place(ActorCritic(lm, critic, config.temperature))
    return policy.eval(), frozen(reward_model), tokenizer   # no dropout: the ratio begins at 1


def critic_from(reward_model, sign):
    """A trainable copy of the reward model, its values in the units and direction of the score."""
    critic = copy.deepcopy(reward_model).requires_grad_(True)
    critic.gain *= sign
    critic.shift *= sign
    return critic


if __name__ == "__main__":
    launch(main, Config, __doc__)
