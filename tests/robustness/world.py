"""A small world to damage: data, the folders of three finished stages, and of one that stopped."""

import contextlib
import io
import json

import pytest

import finetune_ppo
import pretrain
import train_reward
from minippo.corpora.toy import toy
from minippo.run import checkpoint
from minippo.run.flags import parse
from minippo.tools.shared import comparison

COMMON = "--data data.csv --device cpu --precision fp32 --out "
STAGES = {
    "pretrain": (pretrain, "--passes 1 --width 8 --heads 2 --layers 1 --vocab-size 300 "
                           "--context 48 --samples 1 --batch-size 128"),
    "reward": (train_reward, "--model pretrain --passes 1 --normalize-samples 8 "
                             "--response-length 8 --group-size 64"),
    "ppo": (finetune_ppo, "--model pretrain --reward reward --iterations 1 --rollout-size 4 "
                          "--minibatch-size 4 --response-length 4"),
}

FEW = {"SAMPLES": 32, "DRAWS": 128, "AT_ONCE": 16}   # so that stage 3 soon ends: nobody looks at its figures


def arguments_of(stage, out):
    """The command line that made `out` in a world, a list."""
    return f"{COMMON}{out} {STAGES[stage][1]}".split()


def world(folder):
    """In a folder: data.csv, the folders of three finished stages, and `stopped`, one that is not.

    Stopped at the last moment: only the model has still to be written.
    """
    lines = [f'"{row.text}",{row.rating}' for row in toy(300)]
    (folder / "data.csv").write_text("\n".join(["text,rating", *lines]))
    silent = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(silent), \
            contextlib.redirect_stdout(silent):
        patch.chdir(folder)
        for name, count in FEW.items():
            patch.setattr(comparison, name, count)
        for stage, (script, _) in STAGES.items():
            script.main(parse(script.Config, "", arguments_of(stage, stage)))
        patch.setattr(checkpoint, "save", stop)
        with contextlib.suppress(KeyboardInterrupt):
            pretrain.main(parse(pretrain.Config, "", arguments_of("pretrain", "stopped")))
    return folder


def without_times(metrics):
    """The rows of a metrics.jsonl, dicts, but for what no two runs share."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [{key: x for key, x in row.items() if not key.startswith(("time/", "memory/"))} for row in rows]


def stop(*what):
    raise KeyboardInterrupt
