"""One run of a stage: all that surrounds its loop, so that the loop can be read."""

import math
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import tokenizers
import torch

from minippo import data
from minippo.corpora.read import read
from minippo.run import checkpoint, events, imported, parallel, resume
from minippo.run.devices import (
    check_compiler,
    compile_blocks,
    keep_freed_memory,
    peak_memory,
    pick_device,
    place,
    use_bf16,
)
from minippo.run.errors import UserError
from minippo.run.flags import settings
from minippo.run.folder import check_free, claim, note_other_data, read_from
from minippo.run.metrics import Metrics, clock
from minippo.run.signals import deferred_signals
from minippo.training import NonFiniteError


class Run:
    """`with Run(config, shown) as run:`, and inside `for iteration in run.iterations(...)`.

    config      a StageConfig; shown: what the progress line shows, {label: key of the statistics}
    device      torch.device of all models; bf16: whether their matrix products are bfloat16
    generator   CPU generator of all random choices but initialisation and dropout
    rows        the rows of --data by part, see data.split
    folder      Path of --out; until the run ends, no other run may write there
    Raises      UserError; SystemExit if the run is finished already; NonFiniteError with the iteration
    """

    def __init__(self, config, shown):
        self.config, self.shown, self.folder = config, shown, Path(config.out)
        check_free(self.folder, config)   # said before anything takes time
        if config.tensorboard:
            events.check(self.folder)
        keep_freed_memory()
        self.device = pick_device(config.device)
        self.bf16 = use_bf16(config.precision, self.device)
        if config.compile:
            if parallel.count() > 1:
                raise UserError("--compile with several processes has not been tried; leave it out")
            check_compiler(self.device)
        if hasattr(config, "model"):
            note_other_data(config)
        torch.manual_seed(config.seed)    # for initialisation and dropout
        self.generator = torch.Generator().manual_seed(config.seed)
        self.done = self.total = 0
        parallel.connect(self.device)   # what is wrong for all has been said
        with ExitStack() as opened, parallel.first_alone():
            self.rows = data.split(read(config.data))
            if not parallel.rank():
                opened.enter_context(claim(self.folder))
                check_free(self.folder, config)   # another run may have ended here meanwhile
            self.opened = opened.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.opened.close()
        if isinstance(error, NonFiniteError) and self.done < self.total:
            state = self.folder / "state.pt"
            kept = f"; {state} holds an earlier state" if state.exists() else ""
            raise NonFiniteError(f"iteration {self.done}: {error}{kept}") from None

    def iterations(self, total, **training):
        """The numbers of the iterations still to do. A run that was stopped goes on where it was.

        The whole state is written every `--save-every` seconds, at the end, and when the run is asked
        to stop. With it the run ends byte for byte as if it had not been stopped (on a CPU).

        training   what changes while training: modules, optimizer, schedule, ...
        Raises     UserError if the run in the folder began with other flags, data or models;
                   KeyboardInterrupt after saving, if it was asked to stop
        """
        self.total, path = total, self.folder / "state.pt"
        training = {name: parallel.unwrapped(x) for name, x in training.items()}
        about = {"settings": settings(self.config), "origin": self.origin(training)}
        if not parallel.rank():
            self.metrics = self.opened.enter_context(closing(Metrics(self.folder, total, self.shown)))
            training["metrics"] = self.metrics
        with deferred_signals() as signals:   # a half-emptied folder could not be gone on with
            goes_on = path.exists() and not self.config.overwrite
            with parallel.first_alone():
                if goes_on:
                    self.done = resume.restore(path, about, total, self.generator, training)
                elif parallel.rank():
                    torch.manual_seed(self.config.seed + parallel.rank())   # dropout of other rows
                else:
                    self.begin_anew()
            if self.config.tensorboard and not parallel.rank():
                self.metrics.events = self.opened.enter_context(
                    closing(events.writer(self.folder, self.done)))
        if signals:
            raise KeyboardInterrupt
        parallel.check_same(f"{about['origin']} {self.done:09}")
        return self.opened.enter_context(closing(self.remaining(path, about, training)))

    def begin_anew(self):
        """What the folder holds of an earlier run goes."""
        checkpoint.clear(self.folder)
        events.clear(self.folder)
        self.metrics.clear()

    def remaining(self, path, about, training):
        """The generator of `iterations`: between two of them the state is saved, if it is time."""
        if hasattr(sys.stderr, "muted"):   # what happens from here on may happen to one process alone
            sys.stderr.muted = False
        with deferred_signals() as signals:
            saved = time.monotonic()
            while self.done < self.total:
                yield self.done
                self.done += 1
                stop, due = parallel.anywhere(signals, time.monotonic() - saved >= self.config.save_every)
                if stop or due or self.done == self.total:
                    resume.save(path, about, self.done, self.generator, training)
                    saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
        if signals:   # it came after the last iteration
            raise KeyboardInterrupt
        parallel.leave()

    def origin(self, training):
        """A fingerprint of what the run began with: rows, device, models as they are before training."""
        models = [x for x in training.values() if isinstance(x, torch.nn.Module)]
        files = [checkpoint.model_hashes(folder) for folder in read_from(self.config)]
        if function := getattr(self.config, "score", ""):
            files.append(checkpoint.file_hash(imported.source(function)))
        return resume.digest(self.rows, self.device, self.bf16, tokenizers.__version__, files, *models)

    def place(self, model):
        """The model on this run's device, computing as the flags say."""
        lm = getattr(model, "lm", model)
        lm.recompute = self.config.recompute
        if self.config.compile:
            compile_blocks(lm)
        return place(model, self.device, self.config.precision)

    spread = staticmethod(parallel.spread)

    def log(self, stats, tokens):
        """Record the statistics of this iteration, a dict of numbers; it worked through so many tokens."""
        if not parallel.rank():
            self.metrics.log(self.done, stats | {"memory/peak_mb": peak_memory(self.device)}, tokens)

    def finish(self, stage, model, tokenizer):
        """Write the trained model: from here on the folder holds a finished run."""
        checkpoint.save(self.folder, stage, model, tokenizer, self.config)
        peak = peak_memory(self.device)
        memory = "" if math.isnan(peak) else f", at most {peak:,.0f} MB of memory"
        print(f"{self.done} iterations in {clock(self.metrics.elapsed())} minutes{memory}", file=sys.stderr)
        page = self.folder / "report.html"
        print(f"written: {self.folder}" + (f"; open {page} in a browser" if page.exists() else ""))
