"""Stage 2: a reward model from people's preferences and the pretrained model -> runs/reward/"""

from dataclasses import dataclass

import torch

from minippo import checkpoint, data
from minippo.config import StageConfig, option, run
from minippo.errors import UserError
from minippo.generation import generate
from minippo.metrics import Metrics
from minippo.resume import resumable
from minippo.reward import RewardModel, preference_loss, regression_loss
from minippo.tokens import PAD
from minippo.tools import calibration
from minippo.training import cross_entropy, linear_decay, start, step, use_bf16


@dataclass
class Config(StageConfig):
    out: str = option("runs/reward", "folder to write")
    model: str = option("runs/pretrain", "folder of the pretrained model to start from")
    loss: str = option("pairwise", "on preferences or ratings", choices=("pairwise", "regression"))
    passes: int = option(3, "over the texts, a vote of each in every pass", low=1)
    group_size: int = option(32, "texts per step; all of them are compared with each other", low=2)
    lr: float = option(3e-4, "learning rate, falling to 0; 1e-4 to 1e-3", low=0)
    lm_coef: float = option(0.5, "weight of a language-modelling loss beside it; 0 = off", low=0)
    weight_decay: float = option(0.01, "of AdamW", low=0)
    longest_prompt: int = option(8, "tokens of a text that may be given as its query", low=1)
    normalize_samples: int = option(512, "responses whose scores get mean 0, deviation 1", low=2)
    response_length: int = option(24, "tokens of those responses", low=1)
    temperature: float = option(0.8, "of those responses: as in stage 3", low=0.01)


def main(config):
    device, generator, parts, folder = start(config)
    lm, tokenizer = checkpoint.load_lm(config.model)
    lm.bf16 = use_bf16(config.precision, device)
    reward = RewardModel(lm).to(device)
    comparisons = data.Comparisons(parts["reward"], tokenizer, lm.config.context)
    held_out = data.Comparisons(parts["prompts"] + parts["test"], tokenizer, lm.config.context)
    groups = comparisons.groups(config.group_size, config.passes, generator)
    prompts = data.Prompts(parts["prompts"], tokenizer, 1, config.longest_prompt,
                           lm.config.context - config.response_length)
    train(reward, comparisons, groups, parts, config, folder, generator)
    print(calibration.lines(calibration.report(reward, comparisons, groups, held_out, generator)))
    normalize(reward, checkpoint.load_lm(config.model)[0], prompts, config, generator)
    checkpoint.save(folder, "reward", reward, tokenizer, config)


def train(reward, comparisons, groups, parts, config, folder, generator):
    """A step per group, the rate falling to 0. Leaves the model in evaluation mode."""
    device = reward.gain.device
    if config.loss == "regression":
        targets = standardized(comparisons.ratings()).to(device)
    optimizer = torch.optim.AdamW(reward.parameters(), config.lr,
                                  weight_decay=config.weight_decay, fused=True)
    schedule = linear_decay(optimizer, len(groups))
    metrics = Metrics(folder, len(groups), {"loss": "loss/reward", "accuracy": "accuracy/train"})
    reward.train()
    origin = parts, reward, device, reward.lm.bf16
    with resumable(config, folder, len(groups), generator, origin, model=reward,
                   optimizer=optimizer, schedule=schedule, metrics=metrics) as iterations:
        for iteration in iterations:
            texts, chosen, rejected = groups[iteration]
            examples = [comparisons.examples[i] for i in texts]
            cut = data.random_cut(config.longest_prompt, generator)
            query, response = data.tensors(examples, cut, device)
            states = reward.lm.states(query, response)
            scores = reward.read(states, response)
            if config.loss == "pairwise":
                loss = preference_loss(scores[chosen], scores[rejected])
            else:
                loss = regression_loss(scores, targets[texts])
            stats = {"loss/reward": loss.item()}
            if config.lm_coef:   # Radford et al. 2018 (GPT), section 3.2
                loss = loss + config.lm_coef * cross_entropy(reward.lm, states, response)
            norm = step(reward, optimizer, schedule, loss)
            accuracy = (scores[chosen] > scores[rejected]).float().mean().item()
            stats |= {"loss/train": loss.item(), "accuracy/train": accuracy, "grad_norm": norm}
            metrics.log(iteration, stats, int((response != PAD).sum()))
    metrics.close()
    reward.eval()


def normalize(reward, pretrained, prompts, config, generator):
    """Responses of the untouched pretrained model get scores of mean 0 and standard deviation 1."""
    lm = pretrained.to(reward.gain.device)
    lm.bf16 = reward.lm.bf16
    query = prompts.sample(config.normalize_samples, generator, reward.gain.device)
    response = generate(lm, query, config.response_length, config.temperature, generator=generator)
    with torch.no_grad():
        reward.normalize(reward(query, response))


def standardized(x):
    """Ratings (N,) with mean 0 and deviation 1; UserError if all are equal."""
    if not (std := x.std(correction=0)) > 0:
        raise UserError(data.ALL_EQUAL)
    return (x - x.mean()) / std


if __name__ == "__main__":
    run(main, Config, __doc__)
