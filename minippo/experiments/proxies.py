"""Reward models that learned from few comparisons, and what others say of the texts that please them."""

import math
from dataclasses import replace
from functools import cached_property

import torch

from minippo.data import Comparisons, random_cut, tensors
from minippo.experiments.frontier import BEST, PPO, SMOOTH, best_of
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic, frozen
from minippo.ppo import collect, update
from minippo.reward import RewardModel, judge, preference_loss
from minippo.run import checkpoint, rows, scoring
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.run.stage_3 import Stage3
from minippo.tokens import PAD, joined
from minippo.tools.shared import calibration
from minippo.tools.shared.comparison import AT_ONCE, best_of_kl, distinct, payment
from minippo.tools.shared.words import Judge
from minippo.training import linear_decay, step

PAIRS, PASSES = 16, 5   # comparisons per step, passes over the few; after that a proxy is right on all of 64
ALL_GROUP, ALL_PASSES = 32, 3                  # with all of them: as train_reward.py --votes 1 --word-lr 0.03
LR, WORD_LR, LM_COEF, WEIGHT_DECAY = 3e-4, 3e-2, 0.5, 0.01
SAMPLE = 1024   # responses of the reference to PPO's prompts: from their mean PPO's scores are counted
SHOWN = 4       # prompts whose responses are kept along a run, of every fifth iteration


class World:
    """What all proxies of a seed share: the reference, its responses, the gold model and the judge.

    Gold and judge learned from the rows "reward", proxies learn from the rows "judge": no rating is in both.

    config          the command's Config, with best_of as a list
    model, reward   folders of the pretrained model and of the gold model
    parts           rated rows by part, see data.split
    """

    def __init__(self, config, model, reward, seed, parts):
        self.config, self.seed, self.ppo, self.device = config, seed, Stage3(), pick_device(config.device)
        self.model, (lm, gold, self.tokenizer) = model, checkpoint.load_both(model, reward)
        self.reference = self.placed(ActorCritic(lm, temperature=self.ppo.temperature)).reference()
        self.gold, self.end = self.placed(frozen(gold)), lm.end
        held_out, context = parts["prompts"] + parts["test"], lm.config.context
        self.judge = Judge(parts["reward"], held_out)
        self.comparisons, self.held_out = (Comparisons(some, self.tokenizer, context)
                                           for some in (parts["judge"], held_out))
        self.prompts, self.fresh = rows.prompts(parts, self.tokenizer, context - self.ppo.response_length,
                                           self.ppo.shortest_prompt, self.ppo.longest_prompt)
        generator = self.generator()
        self.shown = self.fresh.sample(SHOWN, generator, self.device)
        self.sample = self.responses(self.prompts, SAMPLE, 1, generator)
        self.draws = self.responses(self.fresh, config.prompts, max(config.best_of), generator)

    @cached_property
    def judged(self):
        """What judge_all says of the reference's responses, {method: ...}; all proxies share it."""
        return {PPO: self.judge_all(*self.sample), BEST: self.judge_all(*self.draws)}

    def placed(self, model):
        return place(model, self.device, self.config.precision)

    def generator(self):
        return torch.Generator().manual_seed(self.seed)

    def responses(self, prompts, count, each, generator):
        """`each` responses of the reference to each of `count` prompts: query, response, a row for each."""
        query = prompts.sample(count, generator, self.device).repeat_interleave(each, 0)
        parts = [self.reference.generate(part, self.ppo.response_length, generator)
                 for part in query.split(AT_ONCE)]
        return query, joined(parts, fill=PAD)

    @torch.no_grad()
    def paid(self, score, query, response):
        """(B,), on the CPU: what PPO would pay for these responses if this RewardModel were its score."""
        scores = torch.cat([score(*both) for both in zip(query.split(AT_ONCE), response.split(AT_ONCE))])
        ended = (response == self.end).any(1)
        return payment(scores, ended, self.ppo.missing_end_score).float().cpu()

    def judge_all(self, query, response):
        """What those say for whom nothing is optimised: gold and judged_positive, (B,) on the CPU; texts."""
        texts = [self.tokenizer.decode(row) for row in response]
        return {"gold": self.paid(self.gold, query, response),
                "judged_positive": self.judge.positive(texts).float()}, texts


def learn(world, count):
    """A proxy: a reward model that learned from `count` comparisons; 0: from all that the ratings give.

    This repeats the loop of train_reward.py: a flag there for so few comparisons would serve this alone.

    Returns   a RewardModel, frozen, its scores of the reference's responses normalized
    """
    generator = world.generator()
    torch.manual_seed(world.seed)   # the head, and dropout
    proxy = world.placed(RewardModel(checkpoint.load_lm(world.model)[0], world.tokenizer.spaced())).train()
    groups = (few(world.comparisons, count, generator) if count
              else world.comparisons.groups(ALL_GROUP, ALL_PASSES, generator))
    words = {"params": proxy.words.parameters(), "lr": WORD_LR}
    rest = {"params": [*proxy.lm.parameters(), *proxy.head.parameters()]}
    optimizer = torch.optim.AdamW([rest, words], LR, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = linear_decay(optimizer, len(groups))
    for picked, chosen, rejected in groups:
        cut = random_cut(world.ppo.longest_prompt, generator)
        query, response = tensors([world.comparisons.examples[i] for i in picked], cut, world.device)
        opinions, nats = judge(proxy, query, response, LM_COEF)
        step(proxy, optimizer, schedule, nats + sum(preference_loss(x[chosen], x[rejected])
                                                    for x in opinions.T))
    proxy = frozen(proxy)
    scoring.normalize(proxy, *world.sample)
    return proxy


def few(comparisons, count, generator):
    """`count` comparisons of two texts, by one vote each: groups like those of Comparisons, PASSES times."""
    chosen, rejected, _ = calibration.fresh_pairs(comparisons, 3 * count + 30, generator)   # ties drop out
    if len(chosen) < count:
        raise UserError(f"--comparisons {count}: too many ratings of the data are equal; ask for fewer")
    return [(torch.cat([chosen[part], rejected[part]]), torch.arange(len(part)),
             torch.arange(len(part)) + len(part))
            for _ in range(PASSES) for part in torch.randperm(count, generator=generator).split(PAIRS)]


def accuracy(world, proxy):
    """The share of fresh comparisons of held-out texts that a proxy orders right."""
    chosen, rejected, _ = calibration.fresh_pairs(world.held_out, 20_000, world.generator())
    scores = calibration.score_all(proxy, world.held_out.examples)
    return calibration.accuracy(calibration.difference(scores, chosen, rejected))


def pursue(world, proxy, log):
    """PPO on a proxy, the price of KL falling to 0 in the first half: a point for each iteration's rollout.

    log   called with each point
    """
    config, generator = world.config, world.generator()
    torch.manual_seed(world.seed)
    lm = checkpoint.load_lm(world.model)[0]
    policy = world.placed(ActorCritic(lm, temperature=world.ppo.temperature)).eval()
    optimizer = torch.optim.Adam(policy.parameters(), config.lr, eps=1e-5, fused=True)
    memory, points = PPOMemory(), []
    for i in range(config.iterations):
        ppo = replace(world.ppo, kl_coef=config.kl_coef * max(0, 1 - 2 * i / config.iterations),
                      minibatch_size=math.ceil(config.rollout_size / 2))
        query = world.prompts.sample(config.rollout_size, generator, world.device)
        rollout, seen = collect(policy, world.reference, proxy, query, ppo, generator)
        found, texts = world.judge_all(query, rollout.response)
        points.append({"method": PPO, "setting": i, "kl": seen["objective/kl"],
                       "proxy": seen["objective/paid"]} | {name: x.mean().item() for name, x in found.items()}
                      | {"distinct_2": distinct(texts[:config.prompts], 2)})   # of as many as best of n has
        if i % SMOOTH == 0:   # so one point of each window of `smoothed` has texts
            shown = policy.generate(world.shown, ppo.response_length, world.generator())
            points[-1]["texts"] = [world.tokenizer.decode(row) for row in shown]
        log(points[-1])
        memory.clear()
        memory.store(rollout)
        update(policy, optimizer, memory, ppo, generator)
    return points


def best_points(world, proxy):
    """A point for each n: of the reference's responses to each prompt the best of n by the proxy's score."""
    found, texts = world.judged[BEST]
    score = world.paid(proxy, *world.draws)
    values = {name: x.view(world.config.prompts, -1) for name, x in (found | {"proxy": score}).items()}
    rows_of_texts, points = torch.arange(len(texts)).view(world.config.prompts, -1), []
    for n in world.config.best_of:
        best = rows_of_texts.gather(1, values["proxy"][:, :n].argmax(1, keepdim=True))
        points.append({"method": BEST, "setting": n, "kl": best_of_kl(n)}
                      | {name: best_of(n, values["proxy"], x) for name, x in values.items()}
                      | {"distinct_2": distinct([texts[i] for i in best.flatten()], 2)})
    return points


def measured(world, count, log):
    """All points of the proxy that learned from `count` comparisons, and its accuracy.

    Scores are in standard deviations of the reference's responses to the same prompts, from their mean.
    """
    proxy = learn(world, count)
    points = best_points(world, proxy) + pursue(world, proxy, log)
    for method, responses in ((BEST, world.draws), (PPO, world.sample)):
        for name, x in (("proxy", world.paid(proxy, *responses)), ("gold", world.judged[method][0]["gold"])):
            mean, std = x.mean().item(), x.std().clamp(min=1e-8).item()
            for point in (p for p in points if p["method"] == method):
                point[name] = (point[name] - mean) / std
    return [point | {"seed": world.seed, "comparisons": count} for point in points], accuracy(world, proxy)
