"""Write a page about one or several PPO runs: curves, samples, figures, settings (needs matplotlib)."""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from minippo.run.errors import UserError
from minippo.run.files import read_regular
from minippo.run.flags import defaults, option, settings, words
from minippo.run.sizes import LARGEST_CONFIG
from minippo.tools.shared import curves, page, runs
from minippo.tools.shared.page import escaped, table

FIGURES = {"score": ("score", "+.2f"), "judged_positive": ("judged positive", ".0%"),
           "kl": ("KL, nats", ".2f"), "distinct_2": ("distinct word pairs", ".2f"),
           "length": ("length, tokens", ".1f"), "ended": ("ended", ".0%")}
MODELS = {"reference": "before (reference)", "policy": "after (policy)"}
REWARD = {"accuracy": "accuracy on pairs of held-out texts", "bag_of_words": "a bag of words, same pairs",
          "ceiling": "people's ceiling", "raters": "two raters agree",
          "calibration_error": "expected calibration error"}


@dataclass
class Config:
    runs: tuple = words(("runs/ppo",), "folders of PPO runs; also one of `overoptimization`, for its table")
    out: str = option("report.html", "the page to write")
    png: str = option("", "write score and KL alone to this file, and no page; it ends in .svg, .png or .pdf")


@dataclass
class Found:
    """What a run's folder holds: its record, a list of dicts, and dicts, {} for what is not there (yet)."""
    rows: list
    settings: dict
    defaults: dict
    figures: dict


def main(config):
    folders = list(dict.fromkeys(config.runs))
    tables = [folder for folder in folders if os.path.exists(Path(folder) / "points.json")]
    named = [folder for folder in folders
             if folder not in tables or os.path.exists(Path(folder) / "metrics.jsonl")]
    if not named:
        raise UserError("no run to report on; name the folder of a run of finetune_ppo.py, too")
    if config.png:
        curves.write_alone({name: runs.record(name, *curves.ALONE) for name in named}, config.png)
    else:
        found = {name: Found(runs.record(name, *curves.KEYS), runs.settings(name), runs.defaults(name),
                             runs.figures(name)) for name in named}
        page.write(config.out, html(found, tables))
    print(f"written: {config.png or config.out}")


def add_to(run):
    """report.html in the folder of a run of stage 3 that is about to end; a note on stderr if that fails.

    It is written before the folder holds a finished run, so every finished run has one.
    """
    try:
        found = Found(runs.record(run.folder, *curves.KEYS), settings(run.config), defaults(run.config),
                      runs.figures(run.folder))
        page.write(run.folder / "report.html", html({run.folder.absolute().name: found}))
    except Exception as error:   # whatever it is: no picture may end a run
        print(f"note: no page of this run: {error}; then: python -m minippo report {run.folder}",
              file=sys.stderr)


def html(found, tables=()):
    """The whole page, a str. found: {name: Found}; tables: folders of `overoptimization`"""
    title = f"PPO: {next(iter(found))}" if len(found) == 1 else f"PPO: {len(found)} runs"
    records = {name: run.rows for name, run in found.items()}
    body = [legend(found), "<h2>Before and after</h2>", *(before_and_after(*each, len(found) > 1)
                                                          for each in found.items())]
    for heading, sentence, panels in curves.SECTIONS:
        body += [f"<h2>{heading}</h2><p>{sentence}</p>", '<div class="panels">',
                 *(figure(curves.panel(records, key, name), name, note) for key, name, note in panels),
                 "</div>"]
    rewards = {x for run in found.values() if isinstance(x := run.settings.get("reward"), str)} - {""}
    body += ["<h2>The reward model</h2>" if rewards else "",
             *(reward_model(*each) for each in enumerate(sorted(rewards)))]   # "": a function scored
    body += ["<h2>Over-optimisation</h2>" if tables else "", *map(overoptimization, tables)]
    body += ["<h2>Settings</h2>", '<div class="settings">', *all_settings(found), "</div>"]
    return page.page(title, "\n".join(body), "report")


def figure(svg, title, note):
    return f"<figure><figcaption><b>{escaped(title)}</b> {escaped(note)}</figcaption>\n{svg}</figure>"


def legend(found):
    """Which line is which run, and how far each is."""
    def item(i, name, run):
        colour, dashes = curves.style(i)
        line = (f'<svg class="key" viewBox="0 0 40 8" aria-hidden="true"><line x1="0" x2="40" y1="4" y2="4" '
                f'stroke="{colour}" stroke-width="3" stroke-dasharray="{curves.DASHES[dashes]}"/></svg>')
        state = "" if run.settings else " so far, the run has not ended"
        return (f"<li>{line if len(found) > 1 else ''}<b>{escaped(name)}</b> {len(run.rows)} iterations"
                f"{state}; in the last one score {shown(run.rows[-1]['objective/scores'], '+.2f')}, "
                f"KL {shown(run.rows[-1]['objective/kl'], '.2f')} nats</li>")
    return f'<ul class="legend">{"".join(item(i, *each) for i, each in enumerate(found.items()))}</ul>'


def before_and_after(name, run, several):
    """The figures of a run's comparison.json, best of n's beside them, and its samples."""
    heading = f"<h3>{escaped(name)}</h3>" if several else ""
    rival = x if isinstance(x := run.figures.get("best_of_n"), dict) else {}
    named = {title: run.figures.get(model) for model, title in MODELS.items()} | {
        f"best of {rival.get('n')} by the reference, {rival.get('prompts')} prompts": rival,
        "after (policy), on these prompts": rival.get("policy")}
    rows = [[title, *(shown(x.get(key), form) for key, (_, form) in FIGURES.items())]
            for title, x in named.items() if x and isinstance(x, dict)]
    if not rows:
        return f"{heading}<p>No figures yet: the stage measures both models at its end.</p>"
    text = heading + table(["", *(title for title, _ in FIGURES.values())], rows)
    if "judge_accuracy" in run.figures:
        text += ("<p>The judge is a bag of words that never saw the reward model's ratings. It is right on "
                 f"{shown(run.figures['judge_accuracy'], '.0%')} of held-out texts.</p>")
    if not isinstance(samples := run.figures.get("samples"), list):
        return f"{text}<p>No samples: the version that made this run kept the figures alone.</p>"
    texts = [[f"{x.get('prompt')} ...", *map(sample, map(x.get, MODELS))] for x in samples if type(x) is dict]
    return f'{text}<div class="samples">{table(["prompt", *MODELS.values()], texts)}</div>'


def sample(x):
    x = x if isinstance(x, dict) else {}
    return f"{shown(x.get('score'), '+.2f')}  {str(x.get('text', '')).strip()}"


def shown(x, form):
    """A number in this form; a dash for what is none."""
    return format(x, form) if math.isfinite(curves.finite(x)) else "-"


def reward_model(number, folder):
    """What stage 2 measured of the reward model in a folder: a table, and a figure of this number."""
    name, found = escaped(folder), runs.figures(folder, "calibration.json")
    if not found:
        return f"<p>Nothing of <code>{name}</code>: from here no calibration.json is seen in it.</p>"
    rows = [[title, shown(found[key], ".3f")] for key, title in REWARD.items() if key in found]
    margins = [[f"from {shown(low, 'g')}", shown(right, ".0%"), shown(share, ".0%")]
               for low, right, share in triples(found.get("by_margin"))]
    bins = triples(found.get("bins"))
    drawn = figure(curves.reliability(bins, f"bins-{number}"), "Calibration", "On the dotted line it is "
                   "right as often as it is sure; below it, it is too sure.") if bins else ""
    return (f"<p>As stage 2 measured <code>{name}</code>:</p>"
            f'<div class="panels"><div>{table(["", "share"], rows)}</div>'
            f'<div>{table(["scores differ by", "right", "of pairs"], margins, "Accuracy by margin")}</div>'
            f"{drawn}</div>")


def triples(x):
    return [each for each in x if isinstance(each, list) and len(each) == 3] if isinstance(x, list) else []


def overoptimization(folder):
    """The table and the sentences that `overoptimization` wrote, as text."""
    path = Path(folder) / "table.md"
    try:
        lines = read_regular(path, LARGEST_CONFIG).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `overoptimization` again") from None
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")] or [[]]
    text = escaped(" ".join(line for line in lines if not line.startswith("|")))
    return f"{table(rows[0], rows[2:], folder)}<p>{text}</p>"


def all_settings(found):
    """Yields HTML: what differs from the defaults or from run to run, then, folded, all the others."""
    for name, run in found.items():
        if not run.settings:
            yield f"<p>The settings of {escaped(name)} are written when it ends.</p>"
        elif not run.defaults:
            yield f"<p>The version that made {escaped(name)} kept no defaults, so nothing is marked.</p>"
    known = [run for run in found.values() if run.settings]
    first, rest = [], []
    for key in dict.fromkeys(key for run in known for key in run.settings):
        differs = any(changed(run, key) for run in known) or any(
            run.settings.get(key) != known[0].settings.get(key) for run in known)
        (first if differs else rest).append([f"--{key.replace('_', '-')}",
                                             *(setting(run, key) for run in found.values())])
    if first:
        yield table(["", *found], first)
    elif known and all(run.defaults for run in known):
        yield "<p>Nothing differs from the defaults.</p>"
    if rest:
        yield (f"<details><summary>{'The other' if first else 'All'} {len(rest)} settings</summary>"
               f"{table(['', *found], rest)}</details>")


def changed(run, key):
    return key in run.settings and run.settings[key] != run.defaults.get(key, run.settings[key])


def setting(run, key):
    """A setting as text; what differs from the default is marked by saying that."""
    mark = f" (default {str(run.defaults[key])[:200]})" if changed(run, key) else ""
    return str(run.settings.get(key, "-"))[:200] + mark
