"""One real update of PPO, token by token, as a page: what was sampled, paid, expected, and learned.

Everything is computed by the functions that train: `collect` makes the rollout, `update` takes the steps.
"""

import math
import os
from dataclasses import dataclass, fields

import torch

from minippo import data, ppo
from minippo.corpora.read import read
from minippo.policy import ActorCritic
from minippo.run import checkpoint, rows, scoring, stage_3
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError, printable
from minippo.run.flags import option, words
from minippo.tools.shared import page, runs
from minippo.tools.shared.look import look
from minippo.tools.shared.tables import flat

TITLES = {"start": "the run's first update", "finished": "one more update, after training"}


@dataclass
class Config:
    run: tuple = words(("runs/ppo",), "folder of a finished run of stage 3")
    policy: str = option("both", "start: the run's first update; finished: one more, after training",
                         choices=("both", *TITLES))
    model: str = option("", "folder of the pretrained model, if it is not where the run found it")
    reward: str = option("", "folder of the reward model, if it is not where the run found it")
    score: str = option("", "module:function that scored the run, if one did")
    data: str = option("", "the data, if it is not where the run found it")
    responses: int = option(8, "responses to show, at evenly spaced ranks of the score", low=1, high=64)
    rollout_size: int = option(0, "responses to sample and to learn from; 0 = as many as the run", low=0)
    lr: float = option(0.0, "learning rate of the update; 0 = the one that the run began with", low=0)
    device: str = option("run", "where to compute; run: where the run did",
                         choices=("run", "auto", "cpu", "cuda", "mps"))
    out: str = option("microscope.html", "the page to write")


def main(config):
    """Look at an update or two of a run, and write the page."""
    if len(config.run) != 1:
        raise UserError(f"{len(config.run)} folders; name one run of stage 3")
    page.check(config.out)
    run = config.run[0]
    looks, tokenizer, asked = looks_of(config, run)
    given = {name: shown(x, tokenizer, config.responses, TITLES[name])
             | {"lr": asked.lr, "says": ""} for name, x in looks.items()}
    if "start" in given:
        row = runs.record(run)[0]
        given["start"] |= {"record": row, "says": agreement(given["start"]["logged"], row)}
    body = (f"<p>Real updates of PPO on the models of <code>{page.escaped(run)}</code>, made by the "
            'functions that train.</p>\n<div id="scope"></div>')
    page.write(config.out, page.page("PPO under the microscope", body, "microscope", looks=given))
    for x in given.values():
        print(f"{x['title']}: {x['size']} responses, {x['tokens']:,} tokens; "
              f"after it {x['means']['clipped'][-1]:.1%} of the tokens are clipped")
        if x["says"]:
            print(f"  {x['says']}")
    print(f"written: {config.out}")


def looks_of(config, run):
    """Looks at the updates asked for, {name of TITLES: Look}, the Tokenizer, and the settings.

    What draws from the generator draws in the run's order: prompts, responses, minibatches.
    """
    finished, its_tokenizer = checkpoint.load_policy(run)
    asked = settings_of(config, run)
    lm, reward_model, tokenizer = scoring.load_scored(asked.model, asked.reward, config.score)
    if lm.config != finished.lm.config or tokenizer.bpe.to_str() != its_tokenizer.bpe.to_str():
        raise UserError(f"{asked.model}: not the model that {run} began with; name that: --model")
    device, sign = pick_device(asked.device), scoring.SIGNS[asked.target]
    critic = scoring.critic_of(reward_model, lm, sign) if asked.separate_critic else None
    fresh = ActorCritic(lm, critic, asked.temperature).eval()
    for model in (reward_model, fresh, critic, finished, finished.critic):
        if isinstance(model, torch.nn.Module):
            place(model, device, asked.precision)
    reference, looks, room = fresh.reference(), {}, lm.config.context - asked.response_length
    prompts, _ = rows.prompts(data.split(read(asked.data)), tokenizer, room, asked.shortest_prompt,
                              asked.longest_prompt)
    for name in TITLES if config.policy == "both" else [config.policy]:
        generator = torch.Generator().manual_seed(asked.seed)
        query = prompts.sample(asked.rollout_size, generator, device)
        ppo_config = ppo.PPOConfig(**{f.name: getattr(asked, f.name) for f in fields(ppo.PPOConfig)})
        if name == "finished" and asked.kl_target:   # it was steered: where it had come to
            ppo_config.kl_coef = runs.record(run, "objective/kl_coef")[-1]["objective/kl_coef"]
        looks[name] = look(fresh if name == "start" else finished, reference,
                           lambda *texts: sign * reward_model(*texts), query, ppo_config, asked.lr, generator)
    return looks, tokenizer, asked


def settings_of(config, run):
    """The run's Stage3, with what was asked for instead; UserError if it or a model is missing."""
    given = runs.settings(run)
    found = stage_3.of_stage_3(run, given)
    if missing := sorted({f.name for f in fields(found)} - given.keys() - {"score"}):   # once there was none
        raise UserError(f"{run}/config.json: no setting {missing[0]}; of another version, or damaged: run "
                        "the stage again")
    if found.score and not (config.score or config.reward):   # only a flag has a function imported
        raise UserError(f"{run} was scored by {found.score!r:.80}; give it by --score")
    for name in ("model", "reward", "data", "rollout_size", "lr"):
        setattr(found, name, getattr(config, name) or getattr(found, name))
    found.device = found.device if config.device == "run" else config.device
    for name in ("model",) if config.score else ("model", "reward"):
        if not os.path.isfile(os.path.join(getattr(found, name), "config.json")):
            raise UserError(f"{getattr(found, name)}: no model, and {run} was made from it; give --{name} "
                            "FOLDER")
    return found


def agreement(logged, row):
    """A sentence: whether the numbers of an update, {name: number}, are those of a row of the record."""
    off = [key for key, x in logged.items()
           if row.get(key) is None or not math.isclose(x, row[key], rel_tol=1e-3, abs_tol=1e-6)]
    if not off:
        return (f"It is the run's own iteration 0: its {len(logged)} numbers are, to a thousandth, those of "
                "that row of metrics.jsonl.")
    return (f"Begun as the run's iteration 0, but {len(off)} of {len(logged)} numbers are not those of its "
            f"row of metrics.jsonl: {off[0]} is {logged[off[0]]:.4g}, there {row.get(off[0])}. Another "
            "processor, precision, number of threads or version rounds otherwise, and then samples other "
            "tokens; other flags, data or models make another update.")


def chosen(scores, count):
    """Places of `count` responses at evenly spaced ranks of their scores (B,), the highest first."""
    order = scores.argsort(descending=True, stable=True).tolist()
    steps = max(1, min(count, len(order)) - 1)
    return [order[round(i * (len(order) - 1) / steps)] for i in range(min(count, len(order)))]


def shown(found, tokenizer, count, title):
    """A Look as the page's script takes it: the chosen responses, and means over all."""
    def text(ids):
        return flat(printable(tokenizer.decode(ids)))

    def row(i):
        tokens = found.rollout.response[i][found.rollout.mask[i]].tolist()
        numbers = {key: [[float(f"{x:.6g}") for x in state[i, :len(tokens)].tolist()] for state in states]
                   for key, states in found.numbers.items()}
        return {"prompt": text(found.rollout.query[i]), "ended": tokenizer.end in tokens, "numbers": numbers,
                "tokens": ["⟨end⟩" if t == tokenizer.end else text([t]) for t in tokens],
                "score": found.scores[i].item(), "paid": found.paid[i].item()}
    picked, config = [row(i) for i in chosen(found.scores, count)], found.config
    return {"title": title, "rows": picked, "means": {key: found.means(key) for key in found.numbers},
            "beta": config.kl_coef, "clip": config.clip, "gamma": config.gamma, "lam": config.lam,
            "size": len(found.rollout), "tokens": int(found.rollout.mask.sum()),
            "collected": found.collected, "added": found.added(), "learned": found.learned,
            "logged": found.logged()}

