"""Whatever a person gets wrong is one line that says what, where and what to do; nothing changes.

A case: a name, the words that its line must hold, what spoils the world (tests/robustness/world.py: data.csv,
finished stages, a stopped one), the command. All run in this process; a few more as real commands.
"""

import hashlib
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile

import pytest
import torch

import finetune_ppo
import pretrain
import train_reward
from minippo.corpora.rows import Row
from minippo.data import split
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic, frozen
from minippo.ppo import PPOConfig, collect, update, whiten
from minippo.reward import RewardModel
from minippo.run import checkpoint
from minippo.run.exits import launch
from minippo.score import NegativePerplexity, TextScore
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD
from minippo.tools import generate
from tests.outside import environment
from tests.robustness.posix import posix
from tests.robustness.world import STAGES, arguments_of

MODULES = {"pretrain": pretrain, "reward": train_reward, "ppo": finetune_ppo, "generate": generate}
NEW = {stage: arguments_of(stage, "new") for stage in STAGES}   # what would go well
NEW["generate"] = "--model ppo --device cpu --precision fp32".split()


def snapshot(folder):
    """Every path below a folder and what is there: bytes, or None for a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}


def unchanged(folder, before):
    """Nothing that was there is another; all that may be new is the empty record of a new run."""
    after = snapshot(folder)
    assert {name: after.get(name, "gone") for name in before} == before
    new = {name: after[name] for name in after.keys() - before.keys()}
    assert new.items() <= {"new": None, "new/metrics.jsonl": b""}.items()


def refused(command, capsys, words):
    """Run a command; it leaves with status 2 and one line that holds the words."""
    stage, *flags = command.split() if isinstance(command, str) else command
    with pytest.raises(SystemExit) as left:
        launch(MODULES[stage].main, MODULES[stage].Config, "", NEW[stage] + flags)
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == "", err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1100
    for word in words.split("|"):
        assert word in err.replace(os.sep, "/"), err


def put(path, content):
    """A function that writes a file in the world."""
    def write(folder):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return write


# ---------------------------------------------------------------- data

PAIR = '{"prompt": "%s", "chosen": "yes %d", "rejected": "no %d"}'
LONG = [hashlib.sha256(bytes([i % 256])).hexdigest() for i in range(300)]
PAIRS = "\n".join(PAIR % (LONG[i] if i % 7 == 0 else f"q {i}", i, i) for i in range(300))
EQUAL = "text,rating\n" + "\n".join(f"film {i},1" for i in range(300))
PART = {row.id: name for name, rows in split([Row(str(i), "") for i in range(300)]).items()
        for row in rows}
EQUAL_HELD_OUT = "id,text,rating\n" + "\n".join(
    f"{i},film {i},{1 if part in ('prompts', 'test') else int(i) % 2}" for i, part in PART.items())
EQUAL_MEANS = "\n".join(json.dumps({"text": f"film {i}", "votes": [2, 4, 4] if i % 2 else [3, 3, 4]})
                        for i in range(300))   # 10/3: their deviation is rounding in float32, and not 0
LONG_IN_TEST = "\n".join(
    json.dumps({"id": i, "prompt": LONG[int(i)] if part == "test" else f"q {i}",
                "chosen": f"yes {i}", "rejected": "no"}) for i, part in PART.items())
UNRATED = "\n".join(f"film {i}" for i in range(300))
GOOD = "text,rating\n" + "\n".join(f"film {i},{i % 3}" for i in range(300)) + "\n"

DATA = [   # name, words, file, content
    ("empty", "bad.txt: empty|one text at least", "bad.txt", ""),
    ("blank", "bad.txt: empty, or without", "bad.txt", " \n\n \n"),
    ("binary", "bad.txt: binary|save it as UTF-8", "bad.txt", bytes(range(256))),
    ("utf16", "bad.csv: binary or UTF-16|UTF-8", "bad.csv", GOOD.encode("utf-16")),
    ("latin1", "bad.txt line 2: not UTF-8|save", "bad.txt", "good\ncaf\u00e9\n".encode("latin-1")),
    ("kind", "bad.xlsx: unknown kind of file|.csv", "bad.xlsx", "PK"),
    ("no_suffix", "bad: unknown kind of file|.txt", "bad", "text"),
    ("one_long_line", "1 usable rows, too few|some hundreds", "bad.txt", "word " * 40_000),
    ("long_cell", "bad.csv line 2: field larger|quote", "bad.csv", "text\n" + "a" * 200_000),
    ("no_column", "no text; found stars|needed text", "bad.csv", "stars\n4\n"),
    ("no_header", "bad.csv line 2: no text; found", "bad.csv", "a fine film,1\nbad,2\n"),
    ("twice", "2 columns are called text|rename", "bad.csv", "Text,text,rating\na,b,1\n"),
    ("two_ratings", "2 columns are called label", "bad.tsv", "text\tlabel\tlabel\na\t1\t2\n"),
    ("more_cells", "bad.csv line 302: more cells|in quotes", "bad.csv", GOOD + "a,b,1\n"),
    ("fewer_cells", "bad.csv line 302: fewer cells|fill", "bad.csv", GOOD + "a\n"),
    ("quote", "missing quote", "bad.csv", 'text,rating\n"a film,1\nb,2\n'),
    ("broken_json", "bad.jsonl line 2: bad JSON|one object a line", "bad.jsonl",
     '{"text": "a"}\n{"text": "b"'),
    ("json_array", "bad.jsonl line 1: not a JSON object|write", "bad.jsonl", '["a", "b"]'),
    ("json_deep", "bad.jsonl line 1: bad JSON", "bad.jsonl", "[" * 100_000),
    ("json_number", "line 1: text is not a text|in quotes", "bad.jsonl", '{"text": 5}'),
    ("json_list", "line 1: chosen is not a text", "bad.jsonl", '{"chosen": [], "rejected": "a"}'),
    ("json_votes", "votes are not a list|[1, 2, -1]", "bad.jsonl", '{"text": "a", "votes": "1"}'),
    ("json_half_character", "line 1: id is not a text", "bad.jsonl",
     '{"id": "\\udcff", "text": "a"}'),
    ("word_rating", "bad.csv line 302: rating 'great'|pos/neg", "bad.csv", GOOD + "a,great\n"),
    ("nan_rating", "line 302: rating 'nan'", "bad.csv", GOOD + "a,nan\n"),
    ("infinite_rating", "line 302: rating '-inf'", "bad.csv", GOOD + "a,-inf\n"),
    ("huge_rating", "line 302: rating '1e300'|up to 1,000,000,000", "bad.csv", GOOD + "a,1e300\n"),
    ("list_rating", "line 1: rating [1]", "bad.jsonl", '{"text": "a", "rating": [1]}'),
    ("too_few", "3 usable rows, too few|some hundreds", "bad.txt", "one\ntwo\nthree\n"),
    ("key_twice", "bad.jsonl line 2: 2 columns are called text|rename", "bad.jsonl",
     '{"text": "a"}\n{"Text": "b", "text": "c"}'),
    ("underline", "bad.csv line 302: rating '1_000' is no finite number", "bad.csv", GOOD + "a,1_000\n"),
    ("two_kinds", "bad.jsonl line 301: the first of pairs|(1)|rated texts (300)|two files", "bad.jsonl",
     "\n".join([*(f'{{"text": "film {i}", "rating": {i % 3}}}' for i in range(300)), PAIR % ("q", 0, 0)])),
    ("long_prompts", "bad.jsonl line 1 has a prompt of|room is for|one of 43 rows of 300|shorten|--context",
     "bad.jsonl", PAIRS),
]


@pytest.mark.parametrize("words, name, content", [case[1:] for case in DATA],
                         ids=[case[0] for case in DATA])
def test_bad_data_is_named_with_its_line_and_a_remedy(place, capsys, words, name, content):
    put(name, content)(place)
    before = snapshot(place)
    refused(f"pretrain --data {name}", capsys, words)
    unchanged(place, before)


def folders(*names):
    return lambda folder: [(folder / name).mkdir(parents=True) for name in names]


OTHER_DATA = [   # name, words, what to make, command
    ("missing", "nowhere.csv: no such file|verses, or toy", folders(), "--data nowhere.csv"),
    ("empty_name", "without pos/ and neg/", folders(), "--data="),
    ("neither", "pos/ and neg/|give one with both", folders("reviews/train/pos"), "--data reviews"),
    ("no_reviews", "pos/ is empty|.txt", folders("reviews/pos", "reviews/neg"), "--data reviews"),
    ("no_neg", "neg/ is empty", lambda folder: [put("reviews/pos/1.txt", "a film")(folder),
                                                folders("reviews/neg")(folder)], "--data reviews"),
    ("pipe", "pipe.txt: neither a file nor a folder",
     lambda folder: os.mkfifo(folder / "pipe.txt"), "--data pipe.txt"),
    ("dangling", "link.txt: neither", lambda folder: (folder / "link.txt").symlink_to("nowhere"),
     "--data link.txt"),
    ("long_name", "no such file", folders(), "--data " + "a" * 5000 + ".txt"),
]


def on_posix(cases, *names):
    """Parameters of cases, each with its name before them; those of these names are for POSIX alone."""
    return [pytest.param(*case, id=name[:45], marks=posix if name in names else ())
            for name, *case in cases]


@pytest.mark.parametrize("words, spoil, flags", on_posix(OTHER_DATA, "pipe", "dangling"))
def test_bad_places_of_data_are_named(place, capsys, words, spoil, flags):
    spoil(place)
    before = sorted(os.listdir(place))
    refused(f"pretrain {flags}", capsys, words)
    assert sorted(os.listdir(place)) == before


# ---------------------------------------------------------------- flags

TOO_LONG = "pretrain --out " + "a" * 300
FLAGS = [   # command, words
    ("pretrain --widht 8", "--widht|--help"),
    ("pretrain extra", "unrecognized arguments: extra"),
    ("pretrain --lr -1", "--lr|-1 is not at least 0"),
    ("pretrain --lr nan", "--lr|nan is not from 0"),
    ("pretrain --lr inf", "--lr|inf is not from 0 to 1000000000"),
    ("pretrain --lr fast", "--lr|invalid float value: 'fast'"),
    ("pretrain --batch-size 0", "--batch-size|0 is not at least 1"),
    ("pretrain --batch-size 1000000000000", "--batch-size|from 1 to 1000000000"),
    ("pretrain --passes 1.5", "--passes|invalid int value: '1.5'"),
    ("pretrain --dropout 1", "--dropout|from 0 to 0.9"),
    ("pretrain --warmup 2", "--warmup|2 is not from 0 to 1"),
    ("pretrain --architecture rnn", "--architecture|'rnn'|decoder"),
    ("pretrain --seed -1", "--seed|from 0"),
    ("pretrain --device tpu", "--device|'tpu'|cuda"),
    ("pretrain --precision fp8", "--precision|'fp8'|bf16"),
    ("pretrain --width 10 --heads 3", "--width 10 is not a multiple of --heads 3"),
    ("pretrain --width 1000000000", "--width 1000000000|from 1 to 65536"),
    ("pretrain --width 65536 --heads 1", "--width 65536, --layers 1 and --context 48|lower"),
    ("pretrain --layers 1000000000", "--layers 1000000000|from 0 to 1000"),
    ("pretrain --context 1000000000", "--context 1000000000|from 1 to"),
    ("pretrain --context 2", "--context|at least 8"),
    ("pretrain --vocab-size 100", "--vocab-size|100 is not from 257 to 1048576"),
    ("pretrain --vocab-size 1000000000", "--vocab-size|1000000000 is not from 257 to 1048576"),
    ("pretrain --resume --overwrite", "--resume|--overwrite|give one"),
    ("pretrain --out=", "--out is empty; name a folder"),
    ("pretrain --out data.csv", "--out data.csv: cannot be written|name another"),
    ("pretrain --out /proc/nowhere/new", "/proc/nowhere/new: cannot be written"),
    (TOO_LONG, "cannot be written (File name too long)"),
    ("pretrain --out pretrain", "--out pretrain holds a finished run|--overwrite"),
    ("pretrain --out stopped", "--out stopped holds an unfinished run|--resume"),
    ("pretrain --out reward --resume", "reward|a run of another script"),
    ("pretrain --out pretrain --resume --lr 0.5", "--lr was 0.0012, now 0.5|--overwrite"),
    ("pretrain --out stopped --resume --lr 0.5", "state.pt|--lr was 0.0012, now 0.5"),
    ("reward --loss hinge", "--loss|'hinge'|pairwise"),
    ("reward --temperature 0", "--temperature|at least 0.01"),
    ("reward --model nowhere", "nowhere: no trained model here|name its folder"),
    ("reward --model=", "error: .: no trained model here"),
    ("reward --model pretrain/model.pt", "pretrain/model.pt: no trained model here"),
    ("reward --model " + "a" * 300, "no trained model here"),
    ("reward --out pretrain --overwrite", "--out pretrain is also read from; name another"),
    ("reward --out ./reward/../pretrain --overwrite", "is also read from"),
    ("reward --response-length 48", "response length leaves|no room|needs 3 tokens|lower it|larger context"),
    ("ppo --target happy", "--target|'happy'|positive"),
    ("ppo --gamma 2", "--gamma|2 is not from 0 to 1"),
    ("ppo --lam nan", "--lam|nan is not from 0 to 1"),
    ("ppo --kl-coef -0.1", "--kl-coef|from 0 to 1000"),
    ("ppo --clip 0", "--clip|at least 0.001"),
    ("ppo --minibatch-size 0", "--minibatch-size|at least 1"),
    ("ppo --minibatch-size 5", "--minibatch-size 5 is larger than --rollout-size 4|lower it"),
    ("ppo --iterations many", "--iterations|invalid int value"),
    ("ppo --model reward/nowhere", "no trained model here|run the script that makes it (pretrain.py"),
    ("ppo --reward nowhere", "nowhere: no trained model here"),
    ("ppo --reward pretrain", "pretrain: holds the model of pretrain.py|train_reward.py"),
    ("ppo --reward ppo", "ppo: holds the model of finetune_ppo.py|train_reward.py"),
    ("ppo --out reward --overwrite", "--out reward is also read from"),
    ("ppo --shortest-prompt 9 --longest-prompt 2", "--shortest-prompt 9|--longest-prompt 2|swap"),
    ("ppo --kl-target 4 --kl-horizon 3", "--kl-horizon 3 is less than a rollout of|or give --kl-target 0"),
    ("ppo --kl-target -1", "--kl-target|-1 is not at least 0"),
    ("ppo --adaptive-kl", "unrecognized arguments: --adaptive-kl"),   # of an older version
    ("ppo --missing-end-penalty 1", "unrecognized arguments: --missing-end-penalty 1"),
    ("ppo --missing-end-score nan", "--missing-end-score|nan is not from -1000000000"),
    ("pretrain --no-resume", "unrecognized arguments: --no-resume"),
    ("generate --temperature 0", "--temperature|at least 0.01"),
    ("generate --top-p 1.5", "--top-p|from 0.01 to 1"),
    ("generate --n 1000000000", "--n|from 1 to 10000"),
    ("generate --model nowhere", "nowhere: no trained model here"),
    ("generate --prompt " + "word" * 50, "--prompt has|context of 48|shorten"),
    ("generate --length 100", "--length asks for 100|context of 48|shorten"),
    ("generate --prompt \udcff", "not UTF-8|write it as UTF-8"),
]


@pytest.mark.parametrize("command, words", on_posix(
    [(command, command, words) for command, words in FLAGS], TOO_LONG, "pretrain --out /proc/nowhere/new"))
def test_a_bad_flag_is_named_with_what_it_may_be(place, capsys, command, words):
    before = snapshot(place)
    refused(command, capsys, words)
    unchanged(place, before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("stage", list(MODULES))
def test_a_gpu_that_is_not_there_is_named(place, capsys, stage):
    before = snapshot(place)
    refused(f"{stage} --device cuda", capsys, "--device cuda: this machine has none|--device auto")
    unchanged(place, before)


def test_preferences_that_are_none_are_named(place, capsys):
    put("equal.csv", EQUAL)(place), put("held_out.csv", EQUAL_HELD_OUT)(place)
    put("means.jsonl", EQUAL_MEANS)(place), put("unrated.txt", UNRATED)(place)
    put("p.jsonl", PAIRS)(place)
    put("short.jsonl", "\n".join(PAIR % (f"q {i}", i, i) for i in range(300)))(place)
    before = snapshot(place)
    note = "reward --data"
    for command, words in [(f"{note} equal.csv", "all ratings in the data, or"),
                           (f"{note} held_out.csv", "or in its held-out tenth, are equal"),
                           (f"{note} unrated.txt", "no preferences|rating or label"),
                           (f"{note} p.jsonl", "p.jsonl line 1 has a prompt of|one of|shorten"),
                           (f"{note} means.jsonl --loss regression", "all ratings in the data"),
                           (f"{note} short.jsonl --loss regression", "a regression needs ratings")]:
        with pytest.raises(SystemExit) as left:
            launch(train_reward.main, train_reward.Config, "", NEW["reward"] + command.split()[1:])
        lines = capsys.readouterr().err.splitlines()   # the first notes that the data is another
        assert left.value.code == 2 and len(lines) == 2 and lines[0].startswith("note: pretrain")
        assert all(word in lines[1] for word in words.split("|")), lines[1]
    unchanged(place, before)


def test_a_prompt_too_long_for_the_comparison_is_named_before_ppo_begins(place, capsys):
    put("long.jsonl", LONG_IN_TEST)(place)
    before = snapshot(place)
    with pytest.raises(SystemExit) as left:
        launch(finetune_ppo.main, finetune_ppo.Config, "", NEW["ppo"] + ["--data", "long.jsonl"])
    assert left.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: long.jsonl line ") and "has a prompt of" in last
    unchanged(place, before)


def test_one_row_whose_prompt_is_too_long_ends_no_stage_and_is_named(place, capsys):
    bad = next(i for i, part in PART.items() if part == "prompts")   # which every stage uses
    put("data.csv", "")(place)
    put("long.jsonl", "\n".join(
        json.dumps({"id": i, "prompt": LONG[int(i)] if i == bad else f"q {i}",
                    "chosen": f"yes {i}", "rejected": f"no {i}"}) for i in PART))(place)
    shutil.rmtree(place / "pretrain"), shutil.rmtree(place / "reward")
    for stage, out in (("pretrain", "pretrain"), ("reward", "reward"), ("ppo", "new")):
        launch(MODULES[stage].main, MODULES[stage].Config, "",
               [*arguments_of(stage, out), "--data", "long.jsonl"])
        notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        [note] = [line for line in notes if "left out, their prompts are too long" in line]
        assert note.startswith("note: 1 of ")
        assert note.endswith(f"first: long.jsonl line {list(PART).index(bad) + 1}")


def test_rows_that_stage_2_cannot_use_are_counted(place, capsys):
    put("some.csv", GOOD + "".join(f"plain film {i},\n" for i in range(300)))(place)
    launch(train_reward.main, train_reward.Config, "", [*NEW["reward"], "--data", "some.csv"])
    [note] = [line for line in capsys.readouterr().err.splitlines() if "no rating" in line]
    assert "rows not used here, they have no rating or label; the first: some.csv line " in note


# ---------------------------------------------------------------- folders

def edit(path, change):
    """A function that changes the JSON of a file in the world."""
    def write(folder):
        tree = json.loads((folder / path).read_text())
        change(tree)
        (folder / path).write_text(json.dumps(tree))
    return write


def weights(path, change):
    """A function that changes the tensors of a file in the world."""
    def write(folder):
        tensors = checkpoint.load_tensors(folder / path)
        change(tensors)
        torch.save(tensors, folder / path)
    return write


def cut(path, share=0.5):
    def write(folder):
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[:int(share * len(content))])
    return write


def flip(path):
    """One bit of the middle of a file is another."""
    def write(folder):
        content = bytearray((folder / path).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / path).write_bytes(content)
    return write


def copied(path, target):
    return lambda folder: shutil.copy(folder / path, folder / target)


def a_zip(folder):
    with zipfile.ZipFile(folder / "pretrain/model.pt", "w") as archive:
        archive.writestr("readme.txt", "no tensors")


def one_number(tensors):
    """A view of one number in the shape of many: a small file that asks for much memory."""
    tensors["embedding.weight"] = torch.ones(1, 1).expand(tensors["embedding.weight"].shape)


def no_number(tensors):
    tensors["norm.weight"][0] = torch.nan


def size(**values):
    """A function that changes sizes of the model in pretrain's config.json."""
    return edit(C, lambda about: about["model"].update(values))


def other_tokenizer(folder):
    Tokenizer.train(["other words than those"] * 9, 290).save(folder / "reward")


def same_size_tokenizer(folder):
    """As many tokens, others: only a comparison of the two folders finds it."""
    size = Tokenizer.load(folder / "reward").vocab_size
    other = Tokenizer.train(map(str, range(1000)), size)
    assert other.vocab_size == size
    other.save(folder / "reward")


M, C, T = "pretrain/model.pt", "pretrain/config.json", "pretrain/tokenizer.json"
S = "stopped/state.pt"
RESUME = "pretrain --out stopped --resume"
DAMAGE = [   # name, words, what to do, command
    ("no_model", "pretrain/model.pt: cannot be read|run the stage again",
     lambda folder: (folder / M).unlink(), "reward"),
    ("model_cut", "pretrain/model.pt: not a model file, or damaged|again", cut(M), "reward"),
    ("model_empty", "pretrain/model.pt: not a model file", cut(M, 0), "generate --model pretrain"),
    ("model_bit", "pretrain/model.pt|damaged (a wrong checksum)", flip(M), "reward"),
    ("model_zip", "pretrain/model.pt: not a model file", a_zip, "reward"),
    ("model_text", "pretrain/model.pt: not a model file", put(M, "weights"), "reward"),
    ("model_pickle", "pretrain/model.pt: not a model file", put(M, pickle.dumps({"a": 1})), "ppo"),
    ("model_swapped", "pretrain: model.pt does not fit", copied("reward/model.pt", M), "reward"),
    ("model_of_list", "no weights by name", lambda folder: torch.save([1], folder / M), "reward"),
    ("model_of_numbers", "no weights by name",
     lambda folder: torch.save({1: torch.ones(1)}, folder / M), "reward"),
    ("shape", "embedding.weight is float32|not float32",
     weights(M, lambda x: x.update({"embedding.weight": torch.ones(3, 8)})), "reward"),
    ("missing_weight", "norm.bias is missing", weights(M, lambda x: x.pop("norm.bias")), "reward"),
    ("more_weights", "extra is not part of it|again",
     weights(M, lambda x: x.update(extra=torch.ones(1))), "ppo"),
    ("double", "norm.bias is float64 (8,), not float32 (8,)",
     weights(M, lambda x: x.update({"norm.bias": x["norm.bias"].double()})), "reward"),
    ("not_a_tensor", "norm.bias is no tensor",
     weights(M, lambda x: x.update({"norm.bias": [0.0] * 8})), "reward"),
    ("sparse", "norm.bias is no tensor of numbers",
     weights(M, lambda x: x.update({"norm.bias": x["norm.bias"].to_sparse()})), "reward"),
    ("one_number", "does not fit", weights(M, one_number), "reward"),
    ("nan", "pretrain/model.pt: norm.weight is not finite|--lr", weights(M, no_number), "reward"),
    ("nan_reward", "reward/model.pt: head.bias is not finite",
     weights("reward/model.pt", lambda x: x["head.bias"].fill_(torch.inf)), "ppo"),
    ("token_outside", "reward: model.pt does not fit config.json (words.spaced has numbers of no token)",
     weights("reward/model.pt", lambda x: x["words.spaced"].fill_(10**6)), "ppo"),
    ("no_config", "pretrain: no trained model here", lambda folder: (folder / C).unlink(), "ppo"),
    ("config_text", "pretrain/config.json: damaged|again", put(C, "width = 8"), "reward"),
    ("config_empty", "pretrain/config.json: damaged", put(C, ""), "reward"),
    ("config_deep", "pretrain/config.json: damaged", put(C, "[" * 100_000), "reward"),
    ("config_list", "pretrain/config.json: damaged", put(C, "[1]"), "reward"),
    ("config_stage", "damaged (not what a stage writes)",
     edit(C, lambda x: x.update(stage=["pretrain"])), "reward"),
    ("config_settings", "damaged (not what a stage writes)",
     edit(C, lambda x: x.update(settings=[["data", "toy"]])), "reward"),
    ("width_text", "damaged (--width '8'|whole number",
     size(width="8"), "reward"),
    ("width_negative", "damaged (--width -8", size(width=-8), "ppo"),
    ("width_fraction", "damaged (--width 8.0", size(width=8.0), "ppo"),
    ("width_huge", "damaged (--width 1000000000000", size(width=10**12), "reward"),
    ("width_wide", "embedding.weight is float32", size(width=4096), "reward"),
    ("layers_many", "is missing", size(layers=30), "reward"),
    ("layers_endless", "damaged (--layers 1000000000", size(layers=10**9), "reward"),
    ("end_outside", "damaged|outside", size(end=-1), "reward"),
    ("dropout_nan", "damaged (--dropout nan: a number from 0 to 1", size(dropout=float("nan")), "reward"),
    ("other_architecture", "is missing", size(architecture="seq2seq"), "reward"),
    ("unknown_size", "damaged|depth", size(depth=3), "reward"),
    ("no_tokenizer", "tokenizer.json: cannot be read", lambda folder: (folder / T).unlink(), "ppo"),
    ("tokenizer_cut", "pretrain/tokenizer.json: not a tokenizer|pretrain.py", cut(T), "reward"),
    ("tokenizer_swapped", "reward/tokenizer.json: not the tokenizer of this model",
     other_tokenizer, "ppo"),
    ("tokenizer_holes", "not a tokenizer (its ids are not 0, 1, 2, ...)",
     edit(T, lambda x: x["model"]["vocab"].update({"zz": 10**6})), "reward"),
    ("tokenizer_of_other_kind", "reward was trained with another tokenizer than pretrain",
     same_size_tokenizer, "ppo"),
    ("state_cut", "stopped/state.pt: damaged, or of another program", cut(S), RESUME),
    ("state_bit", "stopped/state.pt: damaged, or of another program|--overwrite", flip(S), RESUME),
    ("state_foreign", "stopped/state.pt: damaged", put(S, b"\x80\x04}."), RESUME),
    ("state_of_a_model", "stopped/state.pt: damaged, or of another program|--overwrite",
     copied(M, S), RESUME),
    ("state_of_other_data", "stopped/state.pt: the data, models, file of --score|have changed|--overwrite",
     put("data.csv", GOOD), RESUME),
    ("no_weights", "--out pretrain holds config.json: delete it with --overwrite",
     lambda folder: (folder / M).unlink(), "pretrain --out pretrain --resume"),
    ("not_finished", "stopped: a run that was stopped|--resume", folders(),
     "reward --model stopped"),
    ("strange_file", "--out old holds model.pt|--overwrite", put("old/model.pt", "mine"),
     "pretrain --out old"),
    ("state_of_another_script", "state.pt: a run of another script|--overwrite",
     weights(S, lambda x: x["settings"].pop("passes")), RESUME),
    ("record_short", "stopped/metrics.jsonl: shorter than state.pt says|--overwrite",
     put("stopped/metrics.jsonl", ""), RESUME),
]


@pytest.mark.parametrize("words, spoil, command", [case[1:] for case in DAMAGE],
                         ids=[case[0] for case in DAMAGE])
def test_a_damaged_folder_is_named_and_left_as_it_is(place, capsys, words, spoil, command):
    spoil(place)
    before = snapshot(place)
    refused(command, capsys, words)
    unchanged(place, before)


@posix
def test_a_folder_without_permission_is_named(place, capsys):
    (place / "mine").mkdir(mode=0o555)
    place.chmod(0o755)
    (place / "data.csv").chmod(0o644)
    was_root = os.geteuid() == 0
    if was_root:   # an administrator may write everywhere: be nobody meanwhile
        os.seteuid(65534)
    try:
        refused("pretrain --out mine/new", capsys, "mine/new: cannot be written (Permission")
    finally:
        if was_root:
            os.seteuid(0)


@posix
def test_a_folder_that_another_run_writes_to_is_named(place, capsys):
    import fcntl  # not on Windows
    for flag in ("--resume", "--overwrite"):
        with open(place / "stopped/metrics.jsonl", "ab") as other:   # as another process would
            fcntl.flock(other, fcntl.LOCK_EX)
            before = snapshot(place)
            refused(f"pretrain --out stopped {flag}", capsys,
                    "stopped/metrics.jsonl: another run is writing it|wait|another --out")
            unchanged(place, before)


@pytest.mark.parametrize("flag, status", [("", 2), ("--resume", 0)])
def test_a_run_that_ends_while_another_waits_is_kept(place, monkeypatch, capsys, flag, status):
    def end_of_the_other(path):
        shutil.copytree(place / "pretrain", place / "new", dirs_exist_ok=True)
        return open(path, "ab")
    monkeypatch.setattr("minippo.run.folder.hold", end_of_the_other)
    with pytest.raises(SystemExit) as left:
        launch(pretrain.main, pretrain.Config, "", [*NEW["pretrain"], *flag.split()])
    assert (left.value.code or 0) == status
    assert ("finished" if status == 0 else "holds a finished run") in "".join(capsys.readouterr())
    assert snapshot(place / "new") == snapshot(place / "pretrain")


def test_a_record_without_a_state_is_a_stopped_run(place, capsys):
    put("old/metrics.jsonl", '{"iteration": 0}\n')(place)
    refused("pretrain --out old", capsys, "--out old holds an unfinished run: go on with --resume")
    launch(pretrain.main, pretrain.Config, "", [*arguments_of("pretrain", "old"), "--resume"])
    assert (place / "old/model.pt").read_bytes() == (place / M).read_bytes()


# ---------------------------------------------------------------- what is odd, but no mistake

def test_responses_without_a_token_have_a_score_and_no_log_probs(lm, query):
    none = torch.empty(3, 0, dtype=torch.long)
    assert [x.shape for x in ActorCritic(lm)(query, none)] == [(3, 0)] * 3
    reward = RewardModel(lm)
    assert torch.allclose(reward(query, none), reward(query, torch.full((3, 2), PAD)), atol=1e-6)
    assert NegativePerplexity(lm)(query, none).tolist() == [-1, -1, -1]
    tokenizer = Tokenizer.train(["a"], 257)
    text = TextScore(lambda texts: [len(text) for text in texts], tokenizer)
    query = torch.tensor([tokenizer.encode("ab"), tokenizer.encode("cd")])
    assert text(query, none[:2]).tolist() == [2, 2]


def test_a_batch_of_one_is_a_row_of_a_larger_one(lm, query, response):
    for model in (ActorCritic(lm), RewardModel(lm), NegativePerplexity(lm)):
        both, one = model(query, response), model(query[2:], response[2:])
        pairs = zip(both, one) if isinstance(both, tuple) else [(both, one)]
        assert all(torch.allclose(x[2:], y, atol=1e-5) for x, y in pairs)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 3)])
def test_equal_scores_and_a_batch_of_one_train_on_finite_numbers(lm, query, rows):
    policy, memory = ActorCritic(lm), PPOMemory()
    optimizer, config = torch.optim.SGD(policy.parameters(), 0.01), PPOConfig(response_length=4)
    rollout, seen = collect(policy, frozen(policy), lambda query, response: torch.ones(len(query)),
                            query[rows], config, torch.Generator().manual_seed(0))
    memory.store(rollout)
    learned = update(policy, optimizer, memory, config)
    assert seen["objective/scores"] == 1 and seen["objective/scores_std"] == 0
    assert all(math.isfinite(x) for x in (seen | learned).values())
    mask = torch.tensor([[True, True], [True, False]])
    assert whiten(torch.full((2, 2), 3.0), mask).tolist() == [[0, 0], [0, 0]]   # 0 / sqrt(1e-8)


def test_a_word_of_many_letters_is_learned_from_in_pieces():
    start = time.process_time()
    tokenizer = Tokenizer.train(["a" * 200_000], 300)
    assert time.process_time() - start < 30   # in one piece minutes: the square of the length
    assert len(tokenizer.encode("a" * 1000)) < 10


@pytest.mark.parametrize("ids, wrong", [([300], 300), ([5, -2], -2), ([10**30], 10**30)])
def test_a_token_outside_the_vocabulary_is_no_text(ids, wrong):
    with pytest.raises(ValueError, match=f"token {wrong} is outside the vocabulary of 257"):
        Tokenizer.train(["a"], 257).decode(ids)


def broken_rule(texts):
    return 1 / (len(texts) - 2)


@pytest.mark.parametrize("fn, words", [
    (lambda texts: [1.0], r"<lambda>.* must give a number per text.*: 1 of shapes \[\[\]\] for 2 texts"),
    (lambda texts: [[1.0, 2.0]], r"<lambda>.*1 of shapes \[\[2\]\] for 2 texts"),
    (lambda texts: ["a", "b"], "the score function .*<lambda>"),
    (lambda texts: None, "the score function .*<lambda>"),
    (max, "the score function .*max"),   # the largest of the texts: a text
])
def test_a_score_function_that_gives_anything_but_a_number_per_text_is_named(fn, words):
    tokenizer = Tokenizer.train(["a"], 257)
    query = torch.tensor([tokenizer.encode("ab"), tokenizer.encode("cd")])
    with pytest.raises(ValueError, match=words):
        TextScore(fn, tokenizer)(query, query)


def test_the_traceback_of_a_score_function_that_fails_ends_in_it():
    tokenizer = Tokenizer.train(["a"], 257)
    query = torch.tensor([tokenizer.encode("ab"), tokenizer.encode("cd")])
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        TextScore(broken_rule, tokenizer)(query, query)
    assert caught.traceback[-1].name == "broken_rule"


def test_what_the_system_refuses_is_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        launch(lambda config: open(tmp_path / "none"), generate.Config, "", [])
    err = capsys.readouterr().err
    assert left.value.code == 2 and err.count("\n") == 1
    assert "No such file" in err and "fix that, and try again" in err


@pytest.mark.parametrize("error", [
    MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")])
def test_memory_that_is_not_enough_is_one_line(capsys, error):
    def main(config):
        raise error
    with pytest.raises(SystemExit) as left:
        launch(main, generate.Config, "", [])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of memory; ask for smaller batches")


# ---------------------------------------------------------------- other processes

def on_a_full_disk(arguments, output):
    """Run pretrain.py in a fork in which no file may grow beyond 8 KiB; returns its exit status."""
    import resource  # not on Windows
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            launch(pretrain.main, pretrain.Config, "", arguments)
            os._exit(0)
        except SystemExit as left:
            os._exit(left.code)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@posix
def test_a_full_disk_leaves_what_was_saved_whole_and_the_run_goes_on(place, capfd, tmp_path):
    arguments, before = [*arguments_of("pretrain", "stopped"), "--resume"], snapshot(place)
    output = tmp_path / "output.txt"
    assert on_a_full_disk(arguments, output) == 2
    assert "stopped/model.pt: cannot be written (File too large); make room" in output.read_text()
    assert "Traceback" not in output.read_text()
    after = snapshot(place)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith(".part")]
    launch(pretrain.main, pretrain.Config, "", arguments)
    assert (place / "stopped/model.pt").read_bytes() == (place / M).read_bytes()


def generated(place, *words, output=subprocess.PIPE, **variables):
    return subprocess.run([sys.executable, "-m", "minippo", "generate", *NEW["generate"], *words],
                          cwd=place, stdout=output, stderr=subprocess.PIPE, env=environment(**variables))


@posix
@pytest.mark.slow
def test_an_argument_that_is_no_utf_8_is_one_line(place):
    done = generated(place, "--prompt", b"caf\xe9")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"not UTF-8 from character 3 on; write it as UTF-8" in done.stderr


@pytest.mark.slow
def test_texts_that_a_terminal_cannot_show_end_no_command(place):
    done = generated(place, "--prompt", "\u4f60", "--n", "1", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"?")


@posix
@pytest.mark.slow
def test_an_output_that_nobody_reads_on_is_no_traceback(place):
    reader, writer = os.pipe()
    os.close(reader)
    done = generated(place, "--n", "1", output=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
