"""Several processes as torchrun begins them, but forked: torch is imported already."""

import os
import signal
import socket
import sys
import time

import torch

import finetune_ppo
import pretrain
import train_reward
from minippo.run.exits import launch
from minippo.tools.shared import comparison
from tests.robustness.world import FEW

SCRIPTS = {"pretrain": pretrain, "reward": train_reward, "ppo": finetune_ppo}


class Processes:
    """A stage in `count` processes; what each says goes to folder/STAGE-RANK.txt.

    each   rank -> flags of that process alone
    """

    def __init__(self, stage, count, folder, *flags, each=lambda rank: []):
        self.files = [folder / f"{stage}-{rank}.txt" for rank in range(count)]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.pids = [self.fork(stage, rank, count, port, [*flags, *each(rank)]) for rank in range(count)]
        self.left = {}   # rank: exit status, or minus the signal

    def fork(self, stage, rank, count, port, flags):
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := os.fork():
            return pid
        status = 1
        try:
            torch.set_num_threads(1)
            vars(comparison).update(FEW)
            output = os.open(self.files[rank], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            sys.stdout, sys.stderr = (os.fdopen(os.dup(output), "w", buffering=1) for _ in range(2))
            os.dup2(output, 1)
            os.dup2(output, 2)
            if count > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                               "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
                               "TORCHELASTIC_RUN_ID": "test"}
            script = SCRIPTS[stage]
            launch(script.main, script.Config, "", list(flags))
            status = 0
        except SystemExit as error:
            status = error.code or 0
        finally:
            sys.stdout.flush()
            os._exit(status)

    def wait(self, seconds=60):
        """The exit status of each process (minus the signal of one that was killed); none may stay longer."""
        end = time.monotonic() + seconds
        while len(self.left) < len(self.pids):
            for rank, pid in enumerate(self.pids):
                if rank not in self.left:
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        self.left[rank] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                for rank, pid in enumerate(self.pids):
                    if rank not in self.left:
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
                raise TimeoutError(f"still there after {seconds} s; left: {self.left}; {self.said()}")
            time.sleep(0.02)
        return [self.left[rank] for rank in range(len(self.pids))]

    def kill(self):
        """Kill every process, and wait for them."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        self.wait()

    def said(self):
        """What each process said, a text each."""
        return [file.read_text(encoding="utf-8") for file in self.files]

    def after(self, iterations, folder, seconds=60):
        """Wait until the run in a folder has done so many iterations."""
        end, record = time.monotonic() + seconds, folder / "metrics.jsonl"
        while not record.exists() or record.read_bytes().count(b"\n") < iterations:
            if time.monotonic() > end:
                raise TimeoutError(f"after {seconds} s: {self.said()}")
            time.sleep(0.002)
