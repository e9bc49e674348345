"""python -m tests.robustness.fuzz: made-up input for all that reads; nothing but a UserError may come of it.

Every target has a strategy (hypothesis makes the inputs: seeded, so that a run can be repeated) and
a trial that hands one input to the project. A trial returns if the input was accepted, and raises
UserError if it was refused. Anything else is a bug: another error, a trial that takes long, memory.
"""

import argparse
import contextlib
import copy
import io
import json
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import finetune_ppo
import pretrain
import train_reward
from minippo.corpora.read import read
from minippo.run import checkpoint, resume
from minippo.run.errors import UserError
from minippo.run.flags import LARGEST, parse
from minippo.tools import generate
from tests.robustness.world import STAGES, world

PATIENCE = 120   # seconds for one input: on a busy machine, too, far more than any needs

# ---------------------------------------------------------------- files of a user

PIECES = ["text", "rating", "label", "votes", "chosen", "rejected", "prompt", "id", "review", ",",
          "\t", "\n", "\r\n", "\r", '"', '""', "'", "{", "}", "[", "]", ":", " ", "null", "true",
          "NaN", "-Infinity", "1e999", "1", "-3.5", "9" * 40, "pos", "negative", "a good film",
          "\\ud800", "\\u0000", "\ufeff", "\u2028", "\x1c", "\0", "\U0001f600", "e\u0301"]
SCRAPS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=40).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SCRAPS | st.sampled_from(PIECES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCRAPS, inner, max_size=4),
    max_leaves=8)
RECORDS = st.dictionaries(st.sampled_from(PIECES[:9]), VALUES, max_size=6)
CELLS = st.lists(st.lists(st.sampled_from(PIECES[:9] + PIECES[23:]) | st.text(max_size=9),
                          min_size=2, max_size=2), max_size=8)


def encoded(text):
    return text.encode("utf-8", "surrogatepass")


def table(delimiter):
    """Bytes of a table whose header and cells are quoted, each with its quotes doubled, or not."""
    def line(cells, quoted):
        return delimiter.join('"' + cell.replace('"', '""') + '"' if quoted else cell
                              for cell in cells)
    heads = st.sampled_from([["text", "rating"], ["chosen", "rejected"], ["id", "review"]])
    return st.builds(lambda head, rows, quoted: encoded("\n".join(
        line(cells, quoted) for cells in [head, *rows])), heads, CELLS, st.booleans())


USUAL = st.fixed_dictionaries({"text": SCRAPS}, optional={
    "rating": st.floats(-5, 5) | st.sampled_from(["pos", "NEG", "3"]), "id": st.integers(),
    "votes": st.lists(st.integers(-4, 4) | st.booleans(), max_size=4)})
JSON_LINES = st.lists(USUAL | USUAL | RECORDS, max_size=4).map(
    lambda records: "\n".join(map(json.dumps, records)).encode())
ANY_BYTES = st.binary(max_size=200) | SCRAPS.map(encoded)


def read_file(name):
    def trial(place, content):
        path = place.folder / name
        path.write_bytes(content)
        rows = read(path)
        assert rows and len({row.id for row in rows}) == len(rows)
        for row in rows:
            assert row.text.strip() and (row.rating is None or abs(row.rating) <= 10**9)
            row.id.encode(), place.tokenizer.encode(row.prompt + row.text + row.rejected)
    return trial


# ---------------------------------------------------------------- the command line

MODULES = (pretrain, train_reward, finetune_ppo, generate)
FLAGS = sorted({"--" + f.name.replace("_", "-") for m in MODULES for f in fields(m.Config)})
WORDS = st.sampled_from(["nan", "inf", "-inf", "1e400", "-1", "0", "1", "1e-9", "0x10", "1_0",
                         "cpu", "toy", "", " ", "--", "-", "-h", "--help", "@file", "%s", "\udcff",
                         "9" * 5000, "decoder", "pairwise", "\u0663"])
COMMAND = st.tuples(st.sampled_from(MODULES), st.lists(
    st.sampled_from(FLAGS) | st.sampled_from(FLAGS).map(lambda flag: flag.replace("--", "--no-", 1))
    | WORDS | st.integers().map(str) | st.floats().map(str) | st.text(max_size=8)
    | st.tuples(st.sampled_from(FLAGS), WORDS | st.floats().map(str)).map("=".join), max_size=8))


def parse_command(place, command):
    module, words = command
    output, complaint = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaint):
            config = parse(module.Config, "", words)
    except SystemExit as left:
        assert left.code == 2 or (left.code == 0 and output.getvalue().startswith("usage"))
        if left.code == 2:
            assert complaint.getvalue().startswith("error: ") and len(complaint.getvalue()) < 1100
            assert complaint.getvalue().count("\n") == 1
            raise UserError(complaint.getvalue()) from None
        return
    for field in fields(config):
        value, low, high = getattr(config, field.name), *map(field.metadata.get, ("low", "high"))
        assert type(value) is type(field.default)
        if type(value) in (int, float):
            assert (-LARGEST if low is None else low) <= value <= (high or LARGEST)


# ---------------------------------------------------------------- tokens and texts

HALVES = st.text(st.characters(categories=["Cs", "L"]), max_size=30)   # of characters, and whole
TOKEN_IDS = st.lists(st.integers(-3, 310) | st.integers(), max_size=20)


def encode_text(place, text):
    try:
        tokens = place.tokenizer.encode(text)
    except UnicodeEncodeError as error:
        assert any("\ud800" <= letter <= "\udfff" for letter in text)   # half a character
        raise UserError(error) from None
    assert all(0 <= token < place.tokenizer.vocab_size for token in tokens)
    assert place.tokenizer.end not in tokens and place.tokenizer.decode(tokens) == text


def decode_ids(place, ids):
    """Any ids: those outside the vocabulary, PAD apart, are refused; all others are a text."""
    outside = [i for i in ids if not -1 <= i < place.tokenizer.vocab_size]
    try:
        assert isinstance(place.tokenizer.decode(ids), str) and not outside
    except ValueError as error:
        assert outside and f"token {outside[0]} is outside" in str(error)
        raise UserError(error) from None


# ---------------------------------------------------------------- files of a stage's folder

EDITS = st.lists(st.tuples(
    st.sampled_from(["set", "insert", "delete", "cut", "twice", "zero"]),
    st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)


def edited(content, edits):
    """Bytes with some edits, each at a place that is a share of the length."""
    for kind, share, new in edits:
        at = int(share * len(content))
        content = {
            "set": lambda: content[:at] + new + content[at + len(new):],
            "insert": lambda: content[:at] + new + content[at:],
            "delete": lambda: content[:at] + content[at + len(new):],
            "cut": lambda: content[:at],
            "twice": lambda: content + content[at:],
            "zero": lambda: content[:at] + bytes(64) + content[at + 64:],
        }[kind]()
    return content


def load_stage(place, stage):
    """Load a folder with each loader that fits; whatever comes must be able to compute."""
    folder = place.folder / stage
    loaders = {"reward": [checkpoint.load_reward], "ppo": [checkpoint.load_policy]}
    for load in [checkpoint.load_lm, *loaders.get(stage, [])]:
        model, tokenizer = load(folder)
        tokens = torch.tensor([[tokenizer.end, *tokenizer.encode("a film")][:4]])
        out = model(tokens, tokens)
        assert (out[0] if isinstance(out, tuple) else out).isfinite().all()


@contextlib.contextmanager
def changed(path, content):
    """A file of the world with another content, for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def edit_file(name):
    def trial(place, example):
        stage, edits = example
        path = place.folder / stage / name
        with changed(path, edited(path.read_bytes(), edits)):
            load_stage(place, stage)
    return trial


def edit_values(name):
    """A trial that puts another value somewhere into a file, which stays JSON."""
    def trial(place, example):
        stage, shares, value = example
        path = place.folder / stage / name
        tree = put(json.loads(path.read_text()), shares, value)
        with changed(path, json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")):
            load_stage(place, stage)
    return trial


def put(tree, shares, value):
    """A tree of lists and dicts with a value (or nothing, if REMOVED) where the shares lead to."""
    if not shares or not isinstance(tree, (list, dict)) or not tree:
        return value
    places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    at = places[int(shares[0] * (len(places) - 1))]
    tree[at] = put(tree[at], shares[1:], value)
    if tree[at] is REMOVED:
        del tree[at]
    return tree


REMOVED = object()
ODD = st.sampled_from([REMOVED, 0, -1, 10**12, 2**63, 10**30, 0.5, float("nan"), float("inf"), True,
                       None, "8", [], {}, [[8]], 1, 2, 4, 300, "seq2seq", "\ud800"])
VALUE_EDITS = st.tuples(st.sampled_from(list(STAGES)),
                        st.lists(st.floats(0, 1), min_size=2, max_size=4), ODD | VALUES)


def edit_pickle(place, example):
    """Other bytes in the pickle of a model.pt whose checksums are right again."""
    stage, edits = example
    path = place.folder / stage / "model.pt"
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, edited(data, edits) if name.endswith("data.pkl") else data)
    with changed(path, content.getvalue()):
        load_stage(place, stage)


def edit_state(place, edits):
    """A stopped run's state.pt, restored into parts like those that it is of."""
    path = place.folder / "stopped" / "state.pt"
    with changed(path, edited(path.read_bytes(), edits)):
        resume.restore(path, place.about, 10**6, torch.Generator(), copy.deepcopy(place.parts))


def edit_state_values(place, example):
    """A stopped run's state.pt with another value somewhere in it."""
    shares, value = example
    path = place.folder / "stopped" / "state.pt"
    content = io.BytesIO()
    torch.save(put(checkpoint.load_tensors(path), shares, value), content)
    with changed(path, content.getvalue()):
        resume.restore(path, place.about, 10**6, torch.Generator(), copy.deepcopy(place.parts))


def doubled(times, kind):
    """[x, x], where x is [y, y], and so on: to print or to compare it takes 2 ** times steps."""
    x = "deep"
    for _ in range(times):
        x = kind(x)
    return x


DOUBLED = st.builds(doubled, st.integers(1, 60), st.sampled_from(
    [lambda x: [x, x], lambda x: (x, x), lambda x: {"a": x, "b": x}]))

REGEXES = st.sampled_from(["(a+)+$", "(e|e)*x", "e", ".", ""]).map(lambda regex: {"Regex": regex})
PATTERNS = REGEXES | st.sampled_from(["e", " ", ""]).map(lambda text: {"String": text})
PIECE = st.one_of(
    st.builds(lambda pattern, text: {"type": "Replace", "pattern": pattern, "content": text},
              PATTERNS, st.sampled_from(["", "e", "e" * 10**6])),
    st.builds(lambda pattern, how: {"type": "Split", "pattern": pattern, "behavior": how, "invert": False},
              PATTERNS, st.sampled_from(["Isolated", "Removed", "MergedWithNext"])),
    st.sampled_from([{"type": kind} for kind in ("NFD", "Lowercase", "Fuse", "Whitespace", "ByteFallback")]),
    st.just({"type": "Prepend", "prepend": "e" * 10**6}), VALUES)
INSIDE = PIECE.map(lambda x: {"type": "Sequence", "normalizers": [x], "pretokenizers": [x], "decoders": [x]})
PIECES_ADDED = st.tuples(
    st.sampled_from(list(STAGES)), st.sampled_from([
        "normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding", "added_tokens"]),
    PIECE | INSIDE)


def add_piece(place, example):
    """A tokenizer.json with a piece that ours has not."""
    stage, part, piece = example
    path = place.folder / stage / "tokenizer.json"
    with changed(path, json.dumps(json.loads(path.read_text()) | {part: piece}).encode()):
        load_stage(place, stage)


def prepared(folder):
    """A world with what the trials need of it."""
    world(folder)
    lm, tokenizer = checkpoint.load_lm(folder / "pretrain")
    state = checkpoint.load_tensors(folder / "stopped" / "state.pt")
    optimizer = torch.optim.AdamW(lm.parameters())
    metrics = SimpleNamespace(load_state_dict=lambda state: (state["bytes"], state["iterations"]))
    return SimpleNamespace(
        folder=folder, tokenizer=tokenizer, about=state,
        parts={"model": lm, "optimizer": optimizer, "metrics": metrics})


STAGE_EDITS = st.tuples(st.sampled_from(list(STAGES)), EDITS)
TARGETS = {
    ".txt": (ANY_BYTES, read_file("a.txt")),
    ".csv": (ANY_BYTES | table(","), read_file("a.csv")),
    ".tsv": (ANY_BYTES | table("\t"), read_file("a.tsv")),
    ".jsonl": (ANY_BYTES | JSON_LINES, read_file("a.jsonl")),
    "command line": (COMMAND, parse_command),
    "encode": (st.text(max_size=30) | HALVES | SCRAPS, encode_text),
    "decode": (TOKEN_IDS, decode_ids),
    "config.json, values": (VALUE_EDITS, edit_values("config.json")),
    "config.json, bytes": (STAGE_EDITS, edit_file("config.json")),
    "tokenizer.json, values": (VALUE_EDITS, edit_values("tokenizer.json")),
    "tokenizer.json, pieces": (PIECES_ADDED, add_piece),
    "tokenizer.json, bytes": (STAGE_EDITS, edit_file("tokenizer.json")),
    "model.pt": (STAGE_EDITS, edit_file("model.pt")),
    "model.pt, pickle": (STAGE_EDITS, edit_pickle),
    "state.pt": (EDITS, edit_state),
    "state.pt, values": (st.tuples(st.lists(st.floats(0, 1), min_size=1, max_size=5), ODD | VALUES | DOUBLED),
                         edit_state_values),
}


# ---------------------------------------------------------------- the hunt

class Hang(BaseException):
    """No Exception: nothing may swallow it."""


@contextlib.contextmanager
def patience(seconds):
    def hang(number, frame):
        raise Hang(f"no answer in {seconds} s")
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def hunt(name, place, examples, number):
    """Counter of what became of so many inputs: "accepted", "refused". Bugs are raised."""
    strategy, trial = TARGETS[name]
    counts = Counter()

    @seed(number)
    @settings(max_examples=examples, database=None, deadline=None, derandomize=False,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    @given(strategy)
    def try_one(example):
        try:
            with patience(PATIENCE):
                trial(place, example)
            counts["accepted"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            counts["refused"] += 1

    try_one()
    return counts


def memory():
    """The largest amount of memory this process has had so far, MiB."""
    import resource  # not on Windows
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(TARGETS), default=list(TARGETS))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        place = prepared(Path(name))
        for target in given.only:
            start, before = time.perf_counter(), memory()
            counts = hunt(target, place, given.examples, given.seed)
            print(f"{target:>22}: {sum(counts.values()):6} inputs, {counts['refused']:6} refused, "
                  f"{counts['accepted']:6} accepted, {time.perf_counter() - start:5.0f} s, "
                  f"memory +{memory() - before:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
