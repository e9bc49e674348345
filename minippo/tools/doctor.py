"""Say what is wrong with a run, even while it goes on: numbers that show it, why, which flag to change.

Exit status: 2 if a folder is no run, or damaged (it gets one line on stderr, and the others are told all the
same); else 1 if something was found in any of the runs; else 0.
"""

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from minippo.run import files
from minippo.run.errors import UserError, complain
from minippo.run.flags import words
from minippo.tools.findings.causes import CAUSES
from minippo.tools.findings.finding import ANY_STAGE, MANY, STAGE_1, STAGE_2, Seen
from minippo.tools.findings.symptoms import SYMPTOMS
from minippo.tools.shared import runs

WIDE = 100   # columns of the text


@dataclass
class Config:
    runs: tuple = words(("runs/ppo",), "folders of runs, of any stage")


# What tells the stages' records apart, what else a row holds, and what is looked for, the gravest first
STAGES = [
    ("finetune_ppo.py", "objective/kl", ("objective/scores", "objective/scores_std", "tokens/ended",
     "objective/rlhf_reward", "tokens/responses_len_mean", "ppo/policy/approxkl", "ppo/policy/ratio",
     "ppo/policy/entropy", "ppo/policy/clipfrac", "ppo/val/var_explained"), CAUSES + SYMPTOMS),
    ("train_reward.py", "accuracy/train", ("loss/reward",), STAGE_2),
    ("pretrain.py", "loss/train", (), STAGE_1),
]
# What a healthy run's line shows: key, its name, how it is written
SHOWN = [
    ("objective/scores", "score", "+.2f"), ("objective/kl", "KL", ".2f"),
    ("ppo/policy/entropy", "entropy a token", ".2f"), ("ppo/val/var_explained", "explained variance", ".2f"),
    ("ppo/policy/clipfrac", "clipped", ".0%"), ("tokens/responses_len_mean", "length", ".1f"),
    ("tokens/ended", "ended", ".0%"), ("loss/reward", "reward loss", ".3f"),
    ("accuracy/train", "accuracy", ".2f"), ("loss/train", "loss", ".2f"),
]


def main(config):
    """Print what is found in each run at once; leaves with the status above if that is not 0."""
    status, gap = 0, ""
    for folder in config.runs:
        try:
            text, findings = examine(folder)
            print(gap + text, flush=True)
            status, gap = max(status, int(bool(findings))), "\n"
        except (UserError, OSError) as error:
            status = complain(error)
    if status:
        sys.exit(status)


def examine(folder):
    """What doctor says about a run, and the findings behind it, pairs of Finding and evidence."""
    seen, known = see(folder), runs.settings(folder)
    findings = diagnose(seen)
    return report(folder, seen, findings, known), findings


def see(folder):
    """The run in a folder. UserError if there is none, or if its record is damaged or another script's."""
    path = Path(folder)
    record = path / "metrics.jsonl"
    still = files.fcntl and record.is_file() and not files.being_written(record)   # asked before:
    finished = (path / "config.json").exists()   # a run writes this one, and then lets go of its record
    stopped = still and not finished
    if stopped and not record.stat().st_size:   # NaN before the first row
        return Seen([], {}, finished=False, broken_off=True)
    rows = runs.record(folder)
    script, key, others, _ = stage_of(rows)
    rows = runs.record(folder, key, *others, script=script)
    state = path / "state.pt"   # a run that is asked to stop saves it after its last row
    saved = state.exists() and state.stat().st_mtime >= record.stat().st_mtime
    decayed = runs.settings(folder).get("schedule") != "constant"
    return Seen(rows, figures(path), held_out(path), finished, bool(stopped) and not saved, decayed)


def figures(path):
    """What comparison.json says, {} without one; UserError unless it is numbers by name, by model."""
    found = runs.figures(path)
    for model in ("reference", "policy"):
        numbers = found.get(model, {})
        if not isinstance(numbers, dict) or not all(map(runs.is_number, numbers.values())) or (
                not runs.is_number(found.get("judge_accuracy", 0))):
            raise UserError(f"{path / 'comparison.json'}: no figures of finetune_ppo.py; run the stage again")
    return found


def held_out(path):
    """What calibration.json says of held-out texts, {} without one; UserError unless it is numbers."""
    found = runs.figures(path, "calibration.json")
    if found.get("pairs", 0) == 0:   # nothing was held out
        return {}
    if not all(runs.is_number(x := found.get(key)) and x >= 0 for key in ("pairs", "texts", "accuracy")):
        raise UserError(f"{path / 'calibration.json'}: no figures of train_reward.py; run the stage again")
    return found


def stage_of(rows):
    """The line of STAGES that a record belongs to; if to none, the last, which then lacks its key."""
    return next((stage for stage in STAGES if stage[1] in rows[0]), STAGES[-1])


def diagnose(seen):
    """Pairs of Finding and evidence, the gravest first."""
    of_stage = stage_of(seen.rows)[3] if seen.rows else []
    return [(finding, evidence) for finding in ANY_STAGE + of_stage if (evidence := finding.test(seen))]


def report(folder, seen, findings, known):
    """The text about a run. known: its flags, a dict, {} while these are not written down yet."""
    state = "finished" if seen.finished else "not finished"
    head = f"{folder}: {len(seen.rows)} iterations, {state}"
    if not findings:
        few = "" if seen.many else f" (trends are judged from {MANY} iterations on)"
        return wrapped(f"{head}: healthy{few}: {numbers(seen)}", "  ")
    parts = [f"{head}: {len(findings)} finding{'s'[:len(findings) > 1]}, the gravest first"]
    for i, (finding, evidence) in enumerate(findings, 1):
        parts += ["", f"{i}. {finding.name}", labelled("seen", evidence), labelled("why", finding.why),
                  labelled("do", with_values(finding.do, known))]
    return "\n".join(parts)


def numbers(seen):
    """What was looked at: from the first iteration to the mean of the last quarter."""
    return ", ".join(f"{name} {seen.start(key):{form}} -> {seen.late(key):{form}}"
                     for key, name, form in SHOWN if key in seen.rows[0])


def with_values(text, known):
    """The text, and after the first mention of each flag what it was."""
    for flag in dict.fromkeys(re.findall(r"--[a-z-]+[a-z]", text)):
        value = known.get(flag[2:].replace("-", "_"))
        if value is not None:
            text = re.sub(rf"{flag}(?![a-z-])", lambda m: f"{flag} (it was {value})", text, count=1)
    return text


def labelled(label, text):
    return wrapped(f"   {label:<6}{text}", " " * 9)


def wrapped(text, indent):
    return textwrap.fill(text, WIDE, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
