"""Stage 3: PPO. The policy writes, the reward model scores, the policy learns -> runs/ppo/"""

from dataclasses import dataclass, replace

import torch

from minippo.memory import PPOMemory
from minippo.policy import ActorCritic
from minippo.ppo import AdaptiveKL, PPOConfig, collect, update
from minippo.run import rows, scoring, sizes
from minippo.run.exits import launch
from minippo.run.flags import DATA, MODEL, RUN, StageConfig, option
from minippo.run.stage import Run
from minippo.tools import report
from minippo.tools.shared import comparison
from minippo.training import SCHEDULES


@dataclass
class Config(PPOConfig, StageConfig):
    GROUP = "PPO"
    out: str = option("runs/ppo", "folder to write the run to", group=RUN)
    model: str = option("runs/pretrain", "folder of the pretrained model to start from", group=MODEL)
    reward: str = option("runs/reward", "folder of the reward model", group=MODEL)
    score: str = option("", "module:function of texts that scores in place of --reward", group=MODEL)
    separate_critic: bool = option(False, "train a critic apart, begun as the reward model", group=MODEL)
    temperature: float = option(0.8, "temperature of sampling and of all log-probs", low=0.01, group=MODEL)
    shortest_prompt: int = option(2, "fewest tokens of a held-out text given as prompt", low=1, group=DATA)
    longest_prompt: int = option(8, "most tokens of a held-out text given as prompt", low=1, group=DATA)
    target: str = option("positive", "seek high scores, or low ones", choices=("positive", "negative"))
    iterations: int = option(60, "rollouts, each followed by an update", low=1)
    rollout_size: int = option(256, "responses per iteration", low=2)
    lr: float = option(1e-4, "learning rate at the start; 1e-5 (large models) to 1e-3", low=0)
    schedule: str = option("linear", "how --lr falls to 0, or constant", choices=tuple(SCHEDULES))
    kl_target: float = option(4.0, "steer --kl-coef until KL is so many nats per response; 0 = off", low=0)
    kl_horizon: float = option(1e3, "responses in which --kl-target moves --kl-coef by up to a fifth", low=1)

    def __post_init__(self):
        super().__post_init__()
        self.reward = "" if self.score else self.reward
        sizes.check_rollout(self)


def main(config):
    with Run(config, {"score": "objective/scores", "KL": "objective/kl",
                      "length": "tokens/responses_len_mean", "ended": "tokens/ended"}) as run:
        lm, critic, reward_model, tokenizer = scoring.load(config, run)
        policy = run.place(ActorCritic(lm, critic, config.temperature)).eval()   # no dropout: ratio 1
        reference = run.place(policy.reference())
        prompts, fresh = rows.prompts(run.rows, tokenizer, lm.config.context - config.response_length,
                                      config.shortest_prompt, config.longest_prompt)
        optimizer = torch.optim.Adam(policy.parameters(), config.lr, eps=1e-5, fused=True)
        schedule = SCHEDULES[config.schedule](optimizer, config.iterations)
        controller = AdaptiveKL(config.kl_coef, config.kl_target, config.kl_horizon)
        memory = PPOMemory()

        def score(query, response):
            return scoring.SIGNS[config.target] * reward_model(query, response)
        policy, reference, score = map(run.spread, (policy, reference, score))   # over torchrun's processes
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


if __name__ == "__main__":
    launch(main, Config, __doc__)
