"""Runs made sick on purpose: does `minippo doctor` name each fault first, and nothing in healthy ones?

    python -m tests.instruments.sick                    all of them; status 1 if one is named wrongly
    python -m tests.instruments.sick --only NAME ...    some of them
    python -m tests.instruments.sick --write            puts the tables into docs/doctor.md, too

A fault is a line of code changed in a copy of the project, or flags, or both: then a short run of its stage,
on the toy corpus, with models made once for each architecture. The table says what doctor finds first.
For Linux and macOS.
"""

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from minippo.tools import doctor
from minippo.tools.shared.tables import markdown, table
from tests.outside import ROOT, environment

ARCHITECTURES = "decoder", "seq2seq"
COMMON = "--data toy --device cpu --precision fp32"
STAGES = {
    "pretrain": ("pretrain.py", "--width 64 --heads 2 --layers 1 --context 64 --vocab-size 512 --passes 8 "
                                "--lr 3e-3 --samples 1"),
    "reward": ("train_reward.py", "--passes 8 --lr 1e-3"),
    "ppo": ("finetune_ppo.py", "--iterations 25 --rollout-size 64 --minibatch-size 16 --lr 1e-3 "
                             "--value-coef 1 --value-clip 0.5 --kl-coef 0.2 --kl-target 0"),
}
PAGE = ROOT / "docs/doctor.md"


@dataclass(frozen=True)
class Fault:
    """edits: {file: (what stands there once, what is put in its place)}; finding: what doctor has to say"""
    name: str
    finding: str
    flags: str = ""
    edits: dict = field(default_factory=dict)
    stage: str = "ppo"


POLICY, PPO, SCRIPT, MEMORY = "minippo/policy.py", "minippo/ppo.py", "finetune_ppo.py", "minippo/memory.py"
SCORE = "return scoring.SIGNS[config.target] * reward_model(query, response)"

FAULTS = [
    Fault("logarithm of what turns negative", "broke off", edits={SCRIPT: (
        SCORE, "s = reward_model(query, response); return s + (0.5 - s.mean()).log()")}),
    Fault("learning rate 1e-1", "steps too large", "--lr 1e-1"),
    Fault("learning rate 1e-9", "nothing moves", "--lr 1e-9"),
    Fault("no KL penalty, 6 epochs", "KL runs away", "--kl-coef 0 --epochs 6"),
    Fault("KL penalty of the wrong sign", "rewards do not add up",
          edits={PPO: ("rewards = score - kl_coef *", "rewards = score + kl_coef *")}),
    Fault("advantages negated", "objective falls",
          edits={PPO: ("whiten(advantages, mask), returns)", "-whiten(advantages, mask), returns)")}),
    Fault("advantages of other responses", "objective falls",
          edits={PPO: ("whiten(advantages, mask), returns)",
                       "whiten(advantages, mask).roll(1, 0), returns)")}),
    Fault("KL penalty of 100", "KL outweighs the score", "--kl-coef 100"),
    Fault("ratio to the reference", "ratio to the reference",
          edits={PPO: ("old, mask = batch.logprobs", "old, mask = batch.reference_logprobs")}),
    Fault("dropout in the update", "ratio does not begin at 1",
          edits={SCRIPT: ("learned = update(policy, optimizer, memory, ppo_config, run.generator)",
                          "policy.train(); learned = update(policy, optimizer, memory, ppo_config, "
                          "run.generator); policy.eval()")}),
    Fault("dropout everywhere", "KL not 0 at the start",
          edits={SCRIPT: (".eval()   # no dropout", ".train()   # no dropout")}),
    Fault("reference at another temperature", "KL not 0 at the start",
          edits={POLICY: ("frozen(ActorCritic(self.lm, temperature=self.temperature))",
                          "frozen(ActorCritic(self.lm))")}),
    Fault("samples of stale weights", "negative KL",
          edits={POLICY: ("return generate(self.lm, query,",
                          "return generate(self.__dict__.setdefault('stale', frozen(self.lm)), query,")}),
    Fault("the reference is the policy itself", "reference moves along",
          edits={PPO: ("in_microbatches(reference,", "in_microbatches(policy,")}),
    Fault("PAD counted as a token", "pads are counted",
          edits={PPO: ("mask, ended = response != PAD,", "mask, ended = response == response,")}),
    Fault("critic not trained", "dead critic", "--value-coef 0"),
    Fault("constant score", "constant score",
          edits={SCRIPT: (SCORE, "return 0 * reward_model(query, response)")}),
    Fault("score that is noise", "nothing learned",
          edits={SCRIPT: (SCORE, "return torch.randn(len(query), generator=run.generator)")}),
    Fault("score times 10", "score out of scale",
          edits={SCRIPT: (SCORE, "return 10 * reward_model(query, response)")}),
    Fault("rollouts of 4 responses", "batch too small",
          "--rollout-size 4 --minibatch-size 4 --iterations 60"),
    Fault("responses of 2 tokens", "cut off", "--response-length 2"),
    Fault("score grows with length, no KL penalty", "nothing ends", "--missing-end-score 0 --kl-coef 0",
          edits={SCRIPT: (SCORE, "return (response != -1).sum(1) / 4 - 2")}),
    Fault("score falls with length", "all ends at once", "--kl-coef 0.05",
          edits={SCRIPT: (SCORE, "return 3 - (response != -1).sum(1) / 2")}),
    Fault("clip 1e-3, 8 epochs", "clipped everywhere", "--clip 1e-3 --epochs 8"),
    Fault("entropy bonus of the wrong sign", "entropy collapse",
          "--entropy-coef 0.5 --lr 5e-4 --iterations 60",
          edits={PPO: ("loss = loss - config.entropy_coef", "loss = loss + config.entropy_coef")}),
    Fault("clip off", "never clipped", "--clip 1e9"),
    Fault("reward model of random votes", "reward hacked", "--reward {random} --lr 3e-4 --iterations 40"),
    Fault("random votes", "no better than chance", stage="reward", edits={"minippo/corpora/toy.py": (
        "round(toy_rating(text) + rng.gauss(0, 1))", "round(3 * rng.gauss(0, 1))")}),
    Fault("pretraining at a rate of 1", "loss jumps", "--lr 1", stage="pretrain"),
    Fault("pretraining at a rate of 1e-9", "loss does not fall", "--lr 1e-9", stage="pretrain"),
]


def edited(root, edits):
    """{file: its text with the edit}; ValueError unless each place is found exactly once."""
    texts = {}
    for file, (old, new) in edits.items():
        text = (root / file).read_text(encoding="utf-8")
        if (times := text.count(old)) != 1:
            raise ValueError(f"{old!r} occurs {times} times in {file}")
        texts[file] = text.replace(old, new)
    return texts


def copy_of(root, folder, edits):
    """The project in a new folder, edited."""
    shutil.copytree(root / "minippo", folder / "minippo", ignore=shutil.ignore_patterns("__pycache__"))
    for path in root.glob("*.py"):
        shutil.copy(path, folder)
    for file, text in edited(folder, edits).items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


class Bench:
    """A folder in which runs are made; each takes its turn at a file that others may lock, too."""

    def __init__(self, folder, lock):
        self.folder, self.lock = Path(folder), lock
        shutil.rmtree(self.folder / "code", ignore_errors=True)
        self.code = copy_of(ROOT, self.folder / "code", {})   # one may edit the project meanwhile

    def models(self):
        """Stages 1 and 2 of both architectures, and reward models of random votes."""
        shuffled = next(fault for fault in FAULTS if fault.stage == "reward")
        for architecture in ARCHITECTURES:
            for stage in ("pretrain", "reward"):
                self.run(self.code, stage, architecture, "", self.folder / architecture / stage)
            self.sick(shuffled, architecture)

    def run(self, code, stage, architecture, flags, out):
        """A run of a stage by this code, made once; returns its folder. RuntimeError if it could not run."""
        if out.exists():
            return out
        there, part = self.folder / architecture, out.with_suffix(".part")
        words = f"{COMMON} {STAGES[stage][1]} --overwrite --out {part} "
        words += {"pretrain": f"--architecture {architecture}", "reward": f"--model {there}/pretrain",
                  "ppo": f"--model {there}/pretrain --reward {there}/reward"}[stage]
        words += " " + flags.format(random=there / "random_votes")
        with self.turn():
            done = subprocess.run([sys.executable, STAGES[stage][0], *words.split()], cwd=code,
                                  env=environment(PYTHONPATH=str(code)), capture_output=True, text=True)
        if done.returncode not in (0, 3):   # 3: NaN or infinity, which doctor has to see
            raise RuntimeError(f"{out}: status {done.returncode}\n{done.stderr}")
        return part.rename(out)

    @contextlib.contextmanager
    def turn(self):
        with open(self.lock or os.devnull, "ab") as file:
            if self.lock:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def sick(self, fault, architecture):
        """The folder of a run with this fault in it; it is made once."""
        out = self.folder / architecture / re.sub(r"\W+", "_", fault.name)
        code = self.code
        if fault.edits and not out.exists():
            shutil.rmtree(self.folder / "edited", ignore_errors=True)
            code = copy_of(self.code, self.folder / "edited", fault.edits)
        return self.run(code, fault.stage, architecture, fault.flags, out)

    def healthy(self, seed, architecture):
        out = self.folder / architecture / f"seed_{seed}"
        return self.run(self.code, "ppo", architecture, f"--seed {seed}", out)


def names(folder):
    """What doctor finds, the gravest first; ["healthy"] for nothing."""
    return [finding.name for finding, _ in doctor.examine(folder)[1]] or ["healthy"]


def diagnose_faults(bench, faults, say):
    """Rows (fault, architecture, how it was put in, what doctor should say, what it says) of all faults."""
    rows = []
    for fault in faults:
        architecture = ARCHITECTURES[FAULTS.index(fault) % 2]   # by turns
        how = "flags" if not fault.edits else "code"
        found = names(bench.sick(fault, architecture))
        rows.append((f"stage {1 + list(STAGES).index(fault.stage)}: {fault.name}", architecture, how,
                     fault.finding, found[0], ", ".join(found[1:]) or "-"))
        say(rows[-1])
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.instruments.sick",
                                     description="Does minippo doctor name every fault, and none in health?")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults to try; default: all")
    parser.add_argument("--seeds", type=int, default=10, help="healthy runs of each architecture")
    parser.add_argument("--lock", default="", help="a file that is locked during each run")
    parser.add_argument("--keep", default="",
                        help="a folder for the runs, each made once; default: a temporary one")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/doctor.md")
    options = parser.parse_args(arguments)
    if unknown := set(options.only or []) - {fault.name for fault in FAULTS}:
        parser.error(f"--only {', '.join(unknown)}: no fault of that name")
    if options.only and options.write:
        parser.error("--write needs all faults; leave out --only")
    faults = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    begin = time.monotonic()

    def say(row):
        print(f"{time.monotonic() - begin:4.0f} s  {'  '.join(row)}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="sick-") as folder:
        bench = Bench(options.keep or folder, options.lock)
        bench.models()
        rows = diagnose_faults(bench, faults, say)
        alarms = []
        for architecture in ARCHITECTURES:
            for seed in range(options.seeds):
                found = names(bench.healthy(seed, architecture))
                say((f"healthy, seed {seed}", architecture, *found))
                alarms.append((architecture, seed, found))
    return report(rows, alarms, options.write, time.monotonic() - begin)


def report(rows, alarms, write, seconds):
    """Print the tables, and put them into the page; 1 if a fault was named wrongly, or there was an alarm."""
    header = ("fault", "architecture", "put in by", "to be found", "found first", "and then")
    healthy = [(architecture, len(runs), sum(found != ["healthy"] for found in runs),
                ", ".join(sorted({name for found in runs for name in found} - {"healthy"})) or "-")
               for architecture in ARCHITECTURES
               if (runs := [found for a, _, found in alarms if a == architecture])]
    right = sum(row[3] == row[4] for row in rows)
    counted = f"{right} of {len(rows)} faults are named first; {sum(row[2] for row in healthy)} of " \
              f"{len(alarms)} healthy runs give an alarm."
    second = ("healthy runs", "seeds", "with an alarm", "which")
    print(table(header, rows), table(second, healthy), f"{counted} ({seconds:.0f} seconds)", sep="\n\n")
    if write:
        put("findings", listed())
        put("runs", "\n\n".join([counted, markdown(header, rows), markdown(second, healthy)]))
    return 0 if right == len(rows) and not any(row[2] for row in healthy) else 1


def listed():
    """The table of all findings, in the order in which they are told."""
    stages = {"any": doctor.ANY_STAGE} | {script: findings for script, _, _, findings in doctor.STAGES}
    return markdown(("stage", "finding", "why", "what to do"), [
        (stage, finding.name, finding.why, finding.do)
        for stage, findings in stages.items() for finding in findings])


def put(name, tables):
    """Tables into the page, between the two marks of that name."""
    text, end = PAGE.read_text(encoding="utf-8"), "<!-- end -->"
    before, mark, rest = text.partition(f"<!-- {name}: by tests/instruments/sick.py -->\n")
    PAGE.write_text(f"{before}{mark}\n{tables}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
