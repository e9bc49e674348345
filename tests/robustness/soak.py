"""python -m tests.robustness.soak: does a long run of PPO leak memory or files, or slow down? (Linux)

Runs stage 3 on toy data in a process of its own and reads what the system says of it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.robustness.kills import finish, launch, write_data

FIRST = 200   # iterations after which everything is allocated


def look(pid):
    """Resident MB and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


def watch(pid, metrics, iterations):
    """Follow a run; returns {iteration: (MB, files)} at FIRST and at every further hundredth."""
    seen = {}
    wanted = iter(range(FIRST, iterations, 100))
    next_one = next(wanted)
    alive = os.WEXITED | os.WNOHANG | os.WNOWAIT   # asks, and leaves the process to be waited for
    while next_one is not None and not os.waitid(os.P_PID, pid, alive):
        done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if done >= next_one:
            seen[done] = look(pid)
            next_one = next((n for n in wanted if n > done), None)
        time.sleep(0.2)
    return seen


def seconds_per_iteration(metrics, first, last):
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return (rows[last - 1]["time/seconds"] - rows[first - 1]["time/seconds"]) / (last - first)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--architecture", default="decoder")
    options = parser.parse_args()
    n = options.iterations
    if n < FIRST + 200:
        parser.error(f"--iterations {n}: at least {FIRST + 200} are needed to compare")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        for stage in ("pretrain", "reward"):
            finish(launch(stage, folder, folder, options.architecture))
        metrics = folder / "ppo" / "metrics.jsonl"
        pid = launch("ppo", folder, folder, options.architecture,
                     f"--iterations {n} --save-every 5")
        seen = watch(pid, metrics, n)
        finish(pid)
        early, late = (seconds_per_iteration(metrics, a, b)
                       for a, b in ((FIRST, FIRST + 200), (n - 200, n)))
    for done, (megabytes, files) in seen.items():
        print(f"iteration {done:>5}: {megabytes:.1f} MB resident, {files} open files")
    (memory, files), (memory_late, files_late) = seen[min(seen)], seen[max(seen)]
    print(f"memory {memory_late / memory - 1:+.1%}, open files {files_late - files:+}, "
          f"seconds per iteration {early:.3f} to {late:.3f}")
    sys.exit(abs(memory_late / memory - 1) > 0.05 or files_late != files)


if __name__ == "__main__":
    main()
