"""python -m tests.robustness.kills: kill each stage with SIGKILL again and again; compare with clean runs.

Runs are forks of this process, which has imported torch already: a kill costs no start-up.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import finetune_ppo
import pretrain
import train_reward
from minippo.corpora.toy import toy
from minippo.run.flags import parse
from tests.robustness.world import without_times

SMALL = "--device cpu --precision fp32 --resume --save-every 0"
ROWS = 400
STAGES = {
    "pretrain": (pretrain, "--passes 1 --width 16 --heads 2 --layers 1 --vocab-size 300 "
                           "--samples 2 --batch-size 64"),
    "reward": (train_reward, "--passes 1 --normalize-samples 64 --group-size 64"),
    "ppo": (finetune_ppo, "--iterations 12 --rollout-size 16 --minibatch-size 8 --kl-target 4 "
                          "--response-length 8 --separate-critic"),
}


def write_data(folder):
    """A small rated corpus, data.jsonl."""
    (folder / "data.jsonl").write_text("".join(
        json.dumps({"text": row.text, "votes": row.votes}) + "\n" for row in toy()[:ROWS]))


def launch(stage, folder, clean, architecture, more=""):
    """Fork a run of a stage; it reads the earlier stages of `clean`. Returns the process id."""
    script, flags = STAGES[stage]
    arguments = [*SMALL.split(), "--data", str(clean / "data.jsonl"), "--out", str(folder / stage),
                 *flags.split(), *more.split()]
    if stage == "pretrain":
        arguments += ["--architecture", architecture]
    else:
        arguments += ["--model", str(clean / "pretrain")]
    if stage == "ppo":
        arguments += ["--reward", str(clean / "reward")]
    pid = os.fork()
    if pid == 0:
        os.fsync = lambda file: time.sleep(0.01)   # time to be hit while writing, on any disk
        status = 1
        with contextlib.suppress(BaseException):
            output = os.open(folder / f"{stage}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, sys.stdout.fileno())
            os.dup2(output, sys.stderr.fileno())
            script.main(parse(script.Config, "", arguments))
            sys.stdout.flush()
            status = 0
        os._exit(status)
    return pid


def finish(pid):
    """Wait for a run that must end well."""
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"a run ended with status {status}")


def kill_until_finished(stage, folder, clean, architecture, kills, longest, randomness):
    """Start, kill, start again ... and at last let it finish.

    Every other kill waits for a file that is being written, the others for at most `longest` s.
    Returns  how many kills hit a run, and how many of these left a half-written file
    """
    hit = torn = 0
    while hit < kills:
        left_over = half_written(folder / stage)
        pid = launch(stage, folder, clean, architecture)
        end = time.monotonic() + randomness.uniform(0, longest)
        writing = hit % 2 == 0
        while writing or time.monotonic() < end:
            if os.waitpid(pid, os.WNOHANG)[0]:   # it was faster, and must have ended well
                return hit, torn
            if writing and half_written(folder / stage) - left_over:
                break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        hit += 1
        torn += bool(half_written(folder / stage) - left_over)
    finish(launch(stage, folder, clean, architecture))
    return hit, torn


def half_written(folder):
    """Names and times of the files in a folder that are not in their place yet."""
    found = set()
    for path in folder.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):   # in its place by now
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def differences(one, other):
    """Names of files of two finished runs that differ, times in the metrics aside; bytes equal."""
    names = {path.name for path in [*one.iterdir(), *other.iterdir()]}
    contents = {name: [content(folder / name) for folder in (one, other)] for name in names}
    same = sum(len(a) for a, b in contents.values() if a == b)
    return [name for name, (a, b) in contents.items() if a != b], same


def content(path):
    """A file's bytes; of metrics everything but the times."""
    if not path.exists():
        return b""
    if path.name != "metrics.jsonl":
        return path.read_bytes()
    return json.dumps(without_times(path)).encode()


def trial(folder, architecture, kills, seed):
    """All three stages, `kills` kills each. Yields stage, hits, torn files, differing, bytes."""
    folder, randomness = Path(folder), random.Random(seed)
    clean, killed = folder / "clean", folder / "killed"
    clean.mkdir()
    write_data(clean)
    for stage in STAGES:
        for place in (clean / stage, killed / stage):
            place.mkdir(parents=True)
        start = time.monotonic()
        finish(launch(stage, clean, clean, architecture))
        took = time.monotonic() - start
        hit, torn = kill_until_finished(stage, killed, clean, architecture, kills,
                                        took / 2, randomness)
        yield stage, hit, torn, *differences(clean / stage, killed / stage)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="per stage and architecture")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    hits = different = 0
    for architecture in ("decoder", "seq2seq"):
        with tempfile.TemporaryDirectory() as folder:
            for stage, hit, torn, wrong, same in trial(folder, architecture, options.kills,
                                                       options.seed):
                print(f"{architecture:>8} {stage:>8}: {hit} kills, {torn} of them while a file was "
                      f"written; {same:,} bytes equal; different: {wrong or 'none'}", flush=True)
                hits, different = hits + hit, different + len(wrong)
    print(f"{hits} kills survived, {different} files differ")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
