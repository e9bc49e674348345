"""Stage 3 on the movies against TRL 0.11.4: seconds until the policy has reached a score.

Both start from the same pretrained model, with the same reward model, prompts, settings (the defaults of
finetune_ppo.py) and learning rate, and take turns: an iteration of one, an iteration of the other, the second
one first in every second iteration. Only sampling, scoring and learning are timed. Runs cannot be repeated
pair by pair, so nothing is thrown away. How often the machine was crowded between iterations (paired.py)
is in the result: the nearer to 0, the more it is worth.

What differs: TRL knows no temperature, so it is put into its last layer norm, which divides logits and
what the value head reads (both value heads begin at 0). TRL limits the gradient's norm in its first
step only. Each side draws its own samples and order of minibatches. Before training, log-probs and
values of the same responses have to agree; their scores are of one and the same reward model.
"""

import json
import statistics
import sys
from dataclasses import dataclass

import torch

import finetune_ppo
from benchmarks import models
from benchmarks.ours import in_bf16
from benchmarks.paired import CROWDED, agree, look, say, short, spread, timed
from benchmarks.stage3_sides import Ours, Theirs, rows_of
from minippo import data
from minippo.corpora.read import read
from minippo.policy import frozen
from minippo.run import checkpoint, rows
from minippo.run.devices import keep_freed_memory
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import option
from minippo.tokens import PAD
from minippo.tools.shared import comparison

WINDOW = 5              # iterations of the moving mean
LEVELS = (1.0, 1.25)    # scores to reach
TOLERANCE = 1e-4


@dataclass
class Config:
    GROUP = "what is timed"
    pretrained: str = option("runs/pretrain", "folder of the pretrained model (a decoder)")
    reward: str = option("runs/reward", "folder of the reward model")
    data: str = option("movies", "where prompts come from, as in finetune_ppo.py")
    iterations: int = option(60, "iterations of each side; the learning rate falls to 0 over them", low=1)
    rollout_size: int = option(256, "responses per iteration", low=2)
    seed: int = option(0, "fixes prompts and sampling", low=0)
    bf16: bool = option(False, "our matrix products in bfloat16; theirs stay in float32")
    log: str = option("", "file to write a line of JSON per iteration to")


def main(config):
    models.need("trl", "0.11.4")
    stage = finetune_ppo.Config(data=config.data, iterations=config.iterations, seed=config.seed,
                                rollout_size=config.rollout_size)
    lm, reward_model, tokenizer = checkpoint.load_both(config.pretrained, config.reward)
    if lm.config.architecture != "decoder":
        raise UserError(f"{config.pretrained} is a {lm.config.architecture}, and GPT-2 is a decoder; "
                        "pretrain one with --architecture decoder")
    lm, reward_model = lm.eval(), frozen(reward_model)
    parts = data.split(read(config.data))
    prompts, fresh = held_out(parts, tokenizer, stage, lm)
    theirs = Theirs(lm, reward_model, stage)   # before ours: it copies the weights
    sides = {"ours": Ours(lm, reward_model, stage), "theirs": theirs}
    same = agree(checks(sides, prompts.sample(32, torch.Generator().manual_seed(stage.seed))), TOLERANCE)
    in_bf16(config.bf16, sides["ours"].policy, sides["ours"].reference)
    records, looks = race(sides, prompts, config)
    judge = judged(sides, fresh, reward_model, parts, tokenizer, stage)
    say("stage3", config, peer="trl 0.11.4", **summary(records), final=judge, agreement=same,
        matmul_gflops=spread([rate for rate, _ in looks]), looks=len(looks),
        crowded=sum(crowd > CROWDED for _, crowd in looks))


def held_out(parts, tokenizer, stage, lm):
    """Prompts of PPO, and of the comparison at the end."""
    room = lm.config.context - stage.response_length
    return (data.Prompts(part, tokenizer, stage.shortest_prompt, stage.longest_prompt, room)
            for part in rows.fitting(parts, tokenizer, prompts=room, test=room).values())


@torch.no_grad()
def checks(sides, query):
    """Name -> (ours, theirs): what both say of the same responses before they learn."""
    ours, theirs = sides["ours"], sides["theirs"]
    response = ours.policy.generate(query, ours.stage.response_length, torch.Generator().manual_seed(0))
    mask = response != PAD
    found = theirs.trl.judged(theirs.trainer, rows_of(query), [row[row != PAD] for row in response])
    logprobs, values, _ = ours.policy(query, response)
    mine = {"log-probs": logprobs, "values": values,
            "log-probs of the reference": ours.reference(query, response)[0]}
    return {name: (mine[name][mask], found[name]) for name in found}


def race(sides, prompts, config):
    """Records (a dict per iteration), and how the machine looked before and between the iterations."""
    keep_freed_memory()   # as every run of ours does; theirs gains by it, too
    generator, records, looks = torch.Generator().manual_seed(config.seed), [], [look()]
    for i in range(config.iterations):
        query = prompts.sample(config.rollout_size, generator)
        record = {"iteration": i}
        for name in ("theirs", "ours") if i % 2 else ("ours", "theirs"):
            seconds = timed(lambda: sides[name].iteration(query))
            record[name] = {"seconds": seconds} | sides[name].seen
            looks.append(look())
        records.append(record)
        print(json.dumps(record), file=sys.stderr)
        if config.log:
            with open(config.log, "a" if i else "w", encoding="utf-8") as file:
                print(json.dumps(record), file=file)
    return records, looks


def reached(records, name, level):
    """Seconds of a side until the mean score of the last WINDOW iterations was `level`; None if never."""
    scores, seconds = [record[name]["score"] for record in records], 0.0
    for i in range(len(scores)):
        seconds += records[i][name]["seconds"]
        if i + 1 >= WINDOW and statistics.mean(scores[i + 1 - WINDOW:i + 1]) >= level:
            return short(seconds)
    return None


def summary(records):
    """Seconds to each level and to the end of both sides, and ours as a share of theirs."""
    found = {f"seconds_to_{level}": {name: reached(records, name, level) for name in ("ours", "theirs")}
             for level in LEVELS}
    found["seconds_to_the_end"] = {name: short(sum(record[name]["seconds"] for record in records))
                                   for name in ("ours", "theirs")}
    for both in found.values():
        if all(both.values()):
            both["share"] = short(both["ours"] / both["theirs"])
    found["times_faster"] = spread([r["theirs"]["seconds"] / r["ours"]["seconds"] for r in records])
    return found


def judged(sides, prompts, reward_model, parts, tokenizer, stage):
    """Score, KL, the judge's share and more of both policies at the end, on prompts they did not see."""
    judge = comparison.judge_of(parts)
    query = prompts.sample(comparison.SAMPLES, torch.Generator().manual_seed(stage.seed))
    found = {}
    for name, side in sides.items():
        generator, policy = torch.Generator().manual_seed(stage.seed), side.as_ours()
        response = policy.generate(query, stage.response_length, generator)
        figures, *_ = comparison.measure(policy, sides["ours"].reference, reward_model, judge, query,
                                         response, tokenizer, stage.microbatch_size)
        found[name] = {key: short(x) for key, x in figures.items()}
    return found


if __name__ == "__main__":
    launch(main, Config, __doc__)
