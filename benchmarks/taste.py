"""From 200 answers to a policy that wins: does PPO learn what a labeller likes? A Markdown table.

For each scripted labeller and seed: `minippo label`, train_reward.py on its file, finetune_ppo.py, three
commands as a person would type them. Then the policy and the model it came from answer the same held-out
prompts (the part "test" of --data, which no stage has seen), and the labeller's own rule says which answer
wins; ties count half. The noisy labeller judges without its mistakes. What is finished in --out is not done
again; a stage that was stopped on its way has no minutes.
"""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minippo import data
from minippo.corpora.read import read
from minippo.policy import ActorCritic
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.files import write_atomically
from minippo.run.flags import option
from minippo.tools.labels.labellers import MEANT, RULES
from minippo.tools.shared.tables import markdown

ROOT = Path(__file__).resolve().parents[1]

# Which pairs are shown: what random pairs hardly ever show has to be looked for.
CHOICES = {
    "shorter": "--choose random",
    "noisy": "--choose random",
    "actors": "--choose best --candidates 32",
    "questions": "--choose best --candidates 64 --temperature 1",
}
REWARD = "--passes 12 --lr 2e-4"                      # 200 pairs are few: more passes, smaller steps
PPO = "--iterations 40 --rollout-size 128 --lr 2e-4 --kl-coef 0.1 --kl-target 0"


@dataclass
class Config:
    GROUP = "the runs"
    model: str = option("runs/pretrain", "folder of the pretrained model")
    data: str = option("movies", "where prompts come from: what the model was trained on")
    out: str = option("runs/taste", "folder for all runs; what is finished there is not done again")
    labellers: str = option(",".join(RULES), "with commas between")
    seed_count: int = option(3, "how many seeds, from 0", low=1)
    count: int = option(200, "answers of a labeller", low=10)
    responses: int = option(512, "held-out prompts that both models answer", low=2)
    reward_flags: str = option(REWARD, "settings of train_reward.py")
    ppo_flags: str = option(PPO, "settings of finetune_ppo.py")


def main(config):
    names, rows = named(config.labellers), []
    for seed in range(config.seed_count):
        for name in names:
            rows.append(run(config, name, seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(sorted(rows, key=lambda row: list(RULES).index(row["labeller"]))))


def named(labellers):
    """The names in --labellers, a list; UserError for one that nobody has."""
    names = labellers.split(",")
    if unknown := set(names) - RULES.keys():
        raise UserError(f"--labellers {', '.join(unknown)}: there is {', '.join(RULES)}")
    return names


def run(config, name, seed):
    """The figures of a labeller and seed, a dict: from its result.json if that is there."""
    folder = Path(config.out) / f"{name}-{seed}"
    result = folder / "result.json"
    settings = {key: value for key, value in asdict(config).items()
                if key not in ("out", "labellers", "seed_count")}
    if result.exists():
        figures = json.loads(result.read_text(encoding="utf-8"))
        if figures["settings"] != settings:
            raise UserError(f"{result} was made with other settings; name another --out")
        return figures
    common = ["--model", config.model, "--seed", str(seed)]
    labels, reward, policy = (str(folder / what) for what in ("labels.jsonl", "reward", "ppo"))
    folder.mkdir(parents=True, exist_ok=True)
    stages = {
        "label": ["-m", "minippo", "label", "--data", config.data, "--out", labels, "--labeller", name,
                  "--count", str(config.count), *CHOICES[name].split()],
        "reward": [ROOT / "train_reward.py", "--data", labels, "--out", reward, "--resume",
                   *config.reward_flags.split()],
        "ppo": [ROOT / "finetune_ppo.py", "--data", config.data, "--reward", reward, "--out", policy,
                "--resume", *config.ppo_flags.split()]}
    seconds = [timed(folder, stage, *words, *common) for stage, words in stages.items()]
    preferences = len(Path(labels).read_text(encoding="utf-8").splitlines())
    figures = {"labeller": name, "seed": seed, "answers": config.count, "preferences": preferences,
               "settings": settings, "seconds": seconds} | duel(config, MEANT[name], policy, seed)
    write_atomically(result, json.dumps(figures, indent=2).encode())
    return figures


def timed(folder, stage, *words):
    """Run a stage that is not done yet. Seconds it took, kept in the folder; None if it had been stopped."""
    kept = folder / "seconds.json"
    times = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if times.get(stage) is None:
        stopped = stage in times
        write_atomically(kept, json.dumps(times | {stage: None}).encode())
        seconds = command(*words)
        times[stage] = None if stopped else seconds
        write_atomically(kept, json.dumps(times).encode())
    return times[stage]


def command(*words):
    """Seconds that a command of this repository took; the end of this one if it fails."""
    begin, words = time.perf_counter(), [str(word) for word in words]
    print("python", *words, file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *words], stdout=sys.stderr.fileno(),
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        sys.exit(done.returncode)
    return round(time.perf_counter() - begin, 1)


@torch.no_grad()
def duel(config, rule, folder, seed):
    """Policy against reference on held-out prompts, by the labeller's rule: wins, ties, KL, samples."""
    policy, tokenizer = checkpoint.load_policy(folder)
    reference = ActorCritic(checkpoint.load_lm(config.model)[0], temperature=policy.temperature).eval()
    settings = checkpoint.read_config(folder)["settings"]
    length = settings["response_length"]
    prompts = data.Prompts(data.split(read(config.data))["test"], tokenizer, settings["shortest_prompt"],
                           settings["longest_prompt"], policy.lm.config.context - length)
    generator = torch.Generator().manual_seed(1000 + seed)
    query = prompts.sample(config.responses, generator)
    ours, theirs = (model.generate(query, length, generator) for model in (policy, reference))
    kl = (policy(query, ours)[0] - reference(query, ours)[0]).sum(1).mean().item()
    texts = [[tokenizer.decode(row) for row in side] for side in (ours, theirs)]
    said = [rule(one, other) for one, other in zip(*texts)]
    win = (sum(said) / len(said) + 1) / 2
    spread = math.sqrt(sum((x - 2 * win + 1) ** 2 for x in said) / len(said)) / 2   # of one duel
    samples = [[tokenizer.decode(query[i]), texts[0][i], texts[1][i]] for i in range(8)]
    return {"wins": win, "error": spread / math.sqrt(len(said)), "ties": said.count(0) / len(said), "kl": kl,
            "samples": samples}


def table(rows):
    header = ("labeller", "seed", "preferences of the answers", "win rate", "ties", "KL, nats",
              "minutes: label", "reward model", "PPO", "in all")
    return markdown(header, [(
        row["labeller"], row["seed"], f"{row['preferences']} of {row['answers']}",
        f"{row['wins']:.1%} ± {row['error']:.1%}", f"{row['ties']:.0%}", f"{row['kl']:.1f}",
        *(f"{x / 60:.1f}" if x else "-" for x in row["seconds"]),
        f"{sum(row['seconds']) / 60:.1f}" if all(row["seconds"]) else "-") for row in rows])


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
