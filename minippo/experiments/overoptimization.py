"""Over-optimisation: what the judge says while PPO and best-of-n raise the learned score."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minippo import data
from minippo.corpora.read import read
from minippo.experiments.frontier import BEST, PPO, best_of, canvas, draw, fit, table, verdict
from minippo.policy import ActorCritic
from minippo.run import checkpoint, rows
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.run.files import check_replaceable, write_atomically
from minippo.run.flags import numbers, option
from minippo.run.folder import finished_at
from minippo.tokens import PAD
from minippo.tools.shared.comparison import SIGNS, best_of_kl, distinct, payment
from minippo.tools.shared.words import Judge

SCRIPT = Path(__file__).resolve().parents[2] / "finetune_ppo.py"


@dataclass
class Config:
    out: str = option("runs/overoptimization", "folder to write table.md, points.json and the figure to")
    runs: str = option("runs/sweep", "folder to write the PPO runs to; finished ones are kept")
    model: str = option("runs/{seed}/pretrain", "folder of the pretrained model; {seed} stands for each seed")
    reward: str = option("runs/{seed}/reward", "folder of the reward model; {seed} stands for each seed")
    data: str = option("movies", "the data of the three stages; it needs ratings, for the judge")
    seeds: str = option("3", "how many seeds, or which ones, as in 0,1,2")
    kl_coefs: str = option("0.05,0.1,0.2,0.4,0.8", "values of --kl-coef, a PPO run for each")
    best_of: str = option("1,4,16,64", "values of n: the best of n responses of the reference is kept")
    prompts: int = option(256, "held-out prompts on which every model is measured", low=2)
    responses: int = option(4, "responses of a PPO policy to each of these prompts", low=1)
    ppo: str = option("", 'further flags of finetune_ppo.py, as in "--iterations 30"')
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))


def main(config):
    several = "," in config.seeds
    seeds = numbers(config.seeds, int, 0) if several else range(*numbers(config.seeds, int, 1))
    coefs, counts = numbers(config.kl_coefs, float, 0), numbers(config.best_of, int, 1)
    if len(coefs) < 2 or sum(n > 1 for n in counts) < 2:
        raise UserError("a curve takes two points: give --kl-coefs two numbers or more, "
                        "and --best-of two above 1")
    for seed in seeds:   # what is missing is said before hours of work
        checkpoint.load_lm(at(config.model, seed))
        checkpoint.load_reward(at(config.reward, seed))
    parts, out = data.split(read(config.data)), make(config.out)
    check_replaceable(plot := out / "overoptimization.png")
    figure = canvas()
    judge = Judge(parts["judge"], parts["prompts"] + parts["test"])
    points = []
    for seed in seeds:
        runs = {coef: finetune(config, seed, coef) for coef in coefs}
        points += measure(config, seed, runs, counts, parts, judge)
    fits = {method: fit(method, points) for method in (BEST, PPO)}
    text = "\n\n".join([table(points), *(verdict(method, points) for method in fits),
                        f"The judge is right on {judge.accuracy:.0%} of held-out texts."])
    found = {"settings": asdict(config), "judge_accuracy": judge.accuracy, "fits": fits,
             "points": points}
    write_atomically(out / "points.json", json.dumps(found, indent=2).encode())
    write_atomically(out / "table.md", (text + "\n").encode())
    print(text)
    if figure:
        draw(figure, points, plot)


def at(pattern, seed):
    return pattern.replace("{seed}", str(seed))


def make(folder):
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); name another") from None
    return Path(folder)


def finetune(config, seed, coef):
    """The folder of a finished run of stage 3; it is run, or gone on with, if it is not finished.

    Raises   UserError if the folder holds a run of other flags or models, or if the run fails
    """
    folder = Path(config.runs) / str(seed) / f"kl-{coef:g}"
    model, reward = at(config.model, seed), at(config.reward, seed)
    for name in (model, reward):
        if 0 < finished_at(folder) < finished_at(name):
            raise UserError(f"{folder}: holds a run older than {name}; delete it, "
                            "or name another --runs")
    if not SCRIPT.is_file():
        raise UserError(f"{SCRIPT} is not there; run this from a clone of the repository")
    say(f"seed {seed}, kl-coef {coef:g}: training")
    flags = ["--resume", "--model", model, "--reward", reward, "--data", config.data,
             "--seed", str(seed), "--device", config.device, "--kl-coef", str(coef)]
    status = obey([sys.executable, SCRIPT, *config.ppo.split(), *flags, "--out", str(folder)])
    if status not in (0, 4, 141):   # 4, 141: finished, though some output could not be written
        raise UserError(f"{folder}: finetune_ppo.py left with status {status}, as said above")
    return folder


def obey(command):
    """Run a command to its end, its output on stderr; returns its exit status.

    Whoever stops this process stops the command once, and waits until it has saved its state.
    """
    with subprocess.Popen(command, stdout=sys.stderr, start_new_session=True) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise


def say(what):
    print(what, file=sys.stderr, flush=True)


def measure(config, seed, runs, counts, parts, judge):
    """Points (dicts) of one seed: the best of every n, and each policy of `runs` {coef: folder}.

    Score and judge's score: in standard deviations of the reference's responses, from their mean.
    """
    settings = checkpoint.read_config(next(iter(runs.values())))["settings"]
    bench = Bench(config, seed, settings, parts, judge)
    say(f"seed {seed}, best of {counts[-1]}: measuring")
    texts, values = bench.respond(bench.reference, counts[-1])
    points = [{"seed": seed, "method": BEST, "setting": n,
               **point(texts, values, n), "kl": best_of_kl(n)} for n in counts]
    for coef, folder in runs.items():
        say(f"seed {seed}, kl-coef {coef:g}: measuring")
        policy = bench.place(checkpoint.load_policy(folder)[0])
        points.append({"seed": seed, "method": PPO, "setting": coef,
                       **point(*bench.respond(policy, config.responses))})
    for name in ("score", "judge"):
        mean, std = values[name].mean().item(), values[name].std().clamp(min=1e-8).item()
        for p in points:
            p[name] = (p[name] - mean) / std
    return points


class Bench:
    """What all policies of a seed are measured with, at the settings of their training."""

    def __init__(self, config, seed, settings, parts, judge):
        self.seed, self.settings, self.judge = seed, settings, judge
        self.device = pick_device(config.device)
        lm, self.tokenizer = checkpoint.load_lm(at(config.model, seed))
        self.reference = self.place(ActorCritic(lm, temperature=settings["temperature"]))
        self.reward = self.place(checkpoint.load_reward(at(config.reward, seed))[0])
        self.sign = SIGNS[settings["target"]]
        room = lm.config.context - settings["response_length"]
        _, prompts = rows.prompts(parts, self.tokenizer, room, settings["shortest_prompt"],
                                  settings["longest_prompt"])
        generator = torch.Generator().manual_seed(seed)
        self.query = prompts.sample(config.prompts, generator, self.device)

    def place(self, model):
        return place(model, self.device, self.settings["precision"]).eval()

    def respond(self, policy, count):
        """`count` responses to each of P prompts: texts (P lists), {name: (P, count) on the CPU}"""
        generator = torch.Generator().manual_seed(self.seed)
        texts, parts = [], []
        for query in self.query.repeat_interleave(count, 0).split(128):
            response = policy.generate(query, self.settings["response_length"], generator)
            texts += [self.tokenizer.decode(row) for row in response]
            parts.append(self.judged(policy, query, response, texts[-len(response):]))
        return ([texts[i:i + count] for i in range(0, len(texts), count)],
                {name: torch.cat([part[name].float().cpu() for part in parts]).view(-1, count)
                 for name in parts[0]})

    @torch.no_grad()
    def judged(self, policy, query, response, texts):
        """{name: (B,)}. The score is what PPO seeks: fixed for responses that were cut off."""
        ended = (response == policy.end).any(1)
        logit = self.judge.bag(texts)
        score = payment(self.sign * self.reward(query, response), ended, self.settings["missing_end_score"])
        kl = torch.zeros_like(score)
        if policy is not self.reference:
            kl = (policy(query, response)[0] - self.reference(query, response)[0]).sum(1)
        return {"kl": kl, "score": score, "judge": self.sign * logit, "judged_positive": logit > 0,
                "ended": ended, "length": (response != PAD).sum(1)}


def point(texts, values, n=1):
    """A dict of means over the best of every n responses to a prompt; n = 1: over all.

    distinct_2 falls with the number of texts, so it is that of one a prompt: best of its first n.
    """
    picked = values["score"][:, :n].argmax(1).tolist()
    means = {name: best_of(n, values["score"], x) for name, x in values.items()}
    return means | {"distinct_2": distinct([row[i] for row, i in zip(texts, picked)], 2)}
