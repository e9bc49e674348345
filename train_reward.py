"""Stage 2: a reward model from people's preferences and the pretrained model -> runs/reward/"""

from dataclasses import dataclass

import torch

from minippo.data import Comparisons, Prompts, random_cut, tensors
from minippo.generation import generate
from minippo.reward import RewardModel, judge, preference_loss, regression_loss
from minippo.run import checkpoint, rows, scoring
from minippo.run.exits import launch
from minippo.run.flags import DATA, MODEL, RUN, StageConfig, option
from minippo.run.stage import Run
from minippo.tokens import PAD
from minippo.tools.shared import calibration
from minippo.training import linear_decay, step


@dataclass
class Config(StageConfig):
    GROUP = "training"
    out: str = option("runs/reward", "folder to write the run to", group=RUN)
    model: str = option("runs/pretrain", "folder of the pretrained model to start from", group=MODEL)
    loss: str = option("pairwise", "learn preferences, or ratings", choices=("pairwise", "regression"))
    passes: int = option(3, "passes over the texts", low=1)
    votes: int = option(5, "how often in each pass a vote on a text is drawn: more are less noisy", low=1)
    group_size: int = option(32, "texts per step; all of them are compared with each other", low=2)
    lr: float = option(3e-4, "learning rate, falling to 0; 1e-4 to 1e-3", low=0)
    word_lr: float = option(6e-2, "that of the tokens' own weights; 0: the head alone gives the score", low=0)
    lm_coef: float = option(0.5, "weight of the pretraining loss, added to the reward loss; 0 = off", low=0)
    weight_decay: float = option(0.01, "weight decay of AdamW", low=0)
    longest_prompt: int = option(8, "most tokens of a text that are given as its query", low=1, group=DATA)
    normalize_samples: int = option(512, "pretrained model's responses that score mean 0, deviation 1", low=2)
    response_length: int = option(24, "longest of the --normalize-samples responses, in tokens", low=1)
    temperature: float = option(0.8, "temperature of the --normalize-samples responses: stage 3's", low=0.01)


def main(config):
    with Run(config, {"loss": "loss/reward", "accuracy": "accuracy/train"}) as run:
        lm, tokenizer = checkpoint.load_lm(config.model)
        context, room = lm.config.context, lm.config.context - config.response_length
        reward_model = run.place(RewardModel(lm, tokenizer.spaced()))
        parts = rows.fitting(run.rows, tokenizer, reward=context, prompts=room, test=context)
        comparisons = Comparisons(parts["reward"], tokenizer, context)
        fresh = Comparisons(parts["prompts"] + parts["test"], tokenizer, context)
        groups = comparisons.groups(config.group_size, config.passes, run.generator, config.votes)
        prompts = Prompts(parts["prompts"], tokenizer, 1, config.longest_prompt, room)
        rows.note_unused(parts, tokenizer.end, context, comparisons, fresh)
        targets = comparisons.targets().to(run.device) if config.loss == "regression" else None
        words = {"params": reward_model.words.parameters(), "lr": config.word_lr}
        rest = {"params": [*reward_model.lm.parameters(), *reward_model.head.parameters()]}
        optimizer = torch.optim.AdamW([rest, words], config.lr, weight_decay=config.weight_decay, fused=True)
        schedule = linear_decay(optimizer, len(groups))
        heard = 2 if config.word_lr else 1   # opinions that learn; the score of one is not halved
        reward_model.gain.fill_(2 / heard)
        judged = run.spread(judge, reward_model.train())
        for iteration in run.iterations(len(groups), model=reward_model, optimizer=optimizer,
                                        schedule=schedule):
            # 1. A group of texts, the beginning of each as its query.
            picked, chosen, rejected = groups[iteration]
            cut = random_cut(config.longest_prompt, run.generator)
            query, response = tensors([comparisons.examples[i] for i in picked], cut, run.device)
            # 2. Two opinions of them, (B, 2); each has a loss of its own where it contradicts people.
            opinions, nats = judged(query, response, config.lm_coef)
            loss = sum(preference_loss(x[chosen], x[rejected]) if targets is None
                       else regression_loss(x, targets[picked]) for x in opinions.T[:heard])
            scores, stats = opinions.mean(1), {"loss/reward": loss.item() / heard}
            # 3. The language model's loss beside it (Radford et al. 2018, section 3.2): less overfitting.
            norm = step(reward_model, optimizer, schedule, loss + nats)
            accuracy = (scores[chosen] > scores[rejected]).float().mean().item()
            stats |= {"loss/train": (loss + nats).item(), "accuracy/train": accuracy, "grad_norm": norm}
            run.log(stats, tokens=int((response != PAD).sum()))
        reward_model.eval()
        print(calibration.report(reward_model, comparisons, groups, fresh, run))
        normalize(reward_model, prompts, config, run)
        run.finish("reward", reward_model, tokenizer)


def normalize(reward_model, prompts, config, run):
    """Responses of the untouched pretrained model that end get scores of mean 0, standard deviation 1."""
    lm = run.place(checkpoint.load_lm(config.model)[0])
    query = prompts.sample(config.normalize_samples, run.generator, run.device)
    scoring.normalize(reward_model, query, generate(
        lm, query, config.response_length, config.temperature, generator=run.generator))


if __name__ == "__main__":
    launch(main, Config, __doc__)
