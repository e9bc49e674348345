"""Files that want to run code, to be unpacked elsewhere, or to be taken for others: refused."""

import ast
import io
import json
import os
import pickle
import re
import shlex
import signal
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch

import finetune_ppo
import pretrain
import train_reward
from minippo.corpora import chat, fetch, own, snippets, verses
from minippo.corpora.read import read
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.tools import generate
from tests.corpora.packages import like
from tests.outside import ROOT
from tests.robustness.posix import posix
from tests.robustness.world import arguments_of

SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("minippo/**/*.py")]


# ---------------------------------------------------------------- code in files

class Opens:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Calls(Opens):
    def __reduce__(self):
        return os.system, (f"touch {shlex.quote(str(self.path))}",)


def dumped(write, content):
    file = io.BytesIO()
    write(content, file)
    return file.getvalue()


def disguised(content):
    """torch.save's file with other bytes where its pickle is: the shell is a real one."""
    shell, file = io.BytesIO(dumped(torch.save, {"x": torch.ones(1)})), io.BytesIO()
    with zipfile.ZipFile(shell) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            pickled = name.endswith("data.pkl")
            new.writestr(name, pickle.dumps(content, 2) if pickled else old.read(name))
    return file.getvalue()


PAYLOADS = {
    "pickle": partial(dumped, partial(pickle.dump, protocol=2)),
    "text_pickle": partial(dumped, partial(pickle.dump, protocol=0)),
    "torch": partial(dumped, torch.save),
    "old_torch": partial(dumped, partial(torch.save, _use_new_zipfile_serialization=False)),
    "disguised": disguised,
}
ARMED = [(kind, make) for kind in (Opens, Calls) for make in PAYLOADS.values()]


def command(stage, flags):
    module = {"pretrain": pretrain, "reward": train_reward, "ppo": finetune_ppo}.get(stage)
    arguments = arguments_of(stage, "new") if module else "--model ppo --device cpu".split()
    launch((module or generate).main, (module or generate).Config, "", arguments + flags.split())


READ = [   # every file that a command reads, and a command that reads it
    ("pretrain/model.pt", "reward", ""), ("reward/model.pt", "ppo", ""),
    ("ppo/model.pt", "generate", ""), ("stopped/state.pt", "pretrain", "--out stopped --resume"),
    ("pretrain/config.json", "reward", ""), ("pretrain/tokenizer.json", "reward", ""),
    ("pretrain/config.json", "pretrain", "--out pretrain --resume"),
    *((f"data{suffix}", "pretrain", f"--data data{suffix}") for suffix in own.READERS),
    ("cache/" + snippets.ARCHIVE.file, "pretrain", "--data movies"),
    ("cache/" + chat.WHEEL.file, "pretrain", "--data chat"),
    ("cache/" + verses.OLD.file, "pretrain", "--data verses"),
    ("reviews/pos/1.txt", "pretrain", "--data reviews"),
]


@pytest.mark.parametrize("path, stage, flags", READ, ids=[f"{c[0]}_{c[1]}" for c in READ])
def test_code_hidden_in_a_file_is_not_run(place, offline, capsys, path, stage, flags):
    trace = place / "trace"
    (place / path).parent.mkdir(parents=True, exist_ok=True)
    (place / "reviews/neg").mkdir(parents=True, exist_ok=True)
    for kind, make in ARMED:
        if path == "data.txt" and make is PAYLOADS["text_pickle"]:
            continue   # a text indeed: below
        (place / path).write_bytes(make({"embedding.weight": kind(trace)}))
        with pytest.raises(SystemExit) as left:
            command(stage, flags)
        err = capsys.readouterr().err
        assert left.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
        assert not trace.exists()


@pytest.mark.parametrize("kind", [Opens, Calls])
def test_a_pickle_in_letters_is_read_as_the_text_that_it_is(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    content = PAYLOADS["text_pickle"]({"x": kind("trace")})
    Path("data.txt").write_bytes(content)
    texts = {row.text for row in read("data.txt")}
    assert texts == {line.strip() for line in content.decode("ascii").split("\n")} - {""}
    assert not Path("trace").exists()


@pytest.mark.parametrize("load", [checkpoint.load_lm, checkpoint.load_policy])
def test_code_hidden_in_a_policy_is_not_run(place, load):
    for kind, make in ARMED:
        (place / "ppo/model.pt").write_bytes(make({"lm.embedding.weight": kind(place / "trace")}))
        with pytest.raises(UserError, match="ppo.model.pt: not a model file, or damaged"):
            load("ppo")
    assert not (place / "trace").exists()


@pytest.mark.parametrize("kind", [Opens, pytest.param(Calls, marks=posix)])
@pytest.mark.parametrize("make", PAYLOADS.values(), ids=list(PAYLOADS))
def test_the_code_would_have_run(tmp_path, kind, make):
    trace = tmp_path / "trace"
    content = make({"x": kind(trace)})
    try:
        torch.load(io.BytesIO(content), weights_only=False)
    except Exception:   # of a raw pickle it reads what follows the first object, and finds nothing
        pass
    assert trace.exists()


FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "joblib", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "yaml.load", "numpy.load", "np.load"}
ENDINGS = {"system", "popen", "extractall", "unpack_archive"}   # whatever stands before the dot


def careless(source):
    """What in a program may run code that it reads, a list."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), [ast.unparse(k) for k in node.keywords]
            if name in CALLS or name.split(".")[-1] in ENDINGS:
                found.append(name)
            if name.endswith("torch.load") and "weights_only=True" not in given:
                found.append("torch.load without weights_only=True")
            if "shell=True" in given:
                found.append("shell=True")
    return found


IMPORTING = (ROOT / "minippo/run/commands.py",      # the tool that its own list names
             ROOT / "minippo/run/imported.py")   # the function that a flag names, as Python would


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(path):
    source = path.read_text(encoding="utf-8")
    assert careless(source) == []
    assert not re.search(r"\b(import_module|__reduce__|allow_pickle)\b", source) \
        or path in IMPORTING


@pytest.mark.parametrize("source", [
    "import pickle", "from pickle import loads", "import os\nos.system('x')", "eval('1')",
    "torch.load('x')", "torch.load('x', weights_only=False)", "subprocess.run('x', shell=True)",
    "tar.extractall()", "import yaml\nyaml.load(x)", "import torch as t\nexec('')"])
def test_what_is_careless_is_found(source):
    assert careless(source)
    assert careless("torch.load(path, weights_only=True)\nmodel.eval()\nre.compile('x')") == []


# ---------------------------------------------------------------- files that never end

@pytest.fixture
def patience():
    """A function: no call may take so many seconds."""
    def give_up(number, frame):
        pytest.fail("no answer")   # no Exception: nothing swallows it
    before = signal.signal(signal.SIGALRM, give_up)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(capsys, stage, flags):
    """Run a command; the one line that it leaves with."""
    with pytest.raises(SystemExit) as left:
        command(stage, flags)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert left.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def a_pipe(path):
    os.mkfifo(path)


def a_link_to_a_pipe(path):
    os.mkfifo(f"{path}.fifo")
    path.symlink_to(f"{path}.fifo")


def a_device(path):
    path.symlink_to("/dev/null")   # not /dev/zero: what read it would fill the memory of the tests


@posix
@pytest.mark.parametrize("make", [a_pipe, a_link_to_a_pipe, a_device])
@pytest.mark.parametrize("path, stage, flags", READ, ids=[f"{c[0]}_{c[1]}" for c in READ])
def test_a_pipe_or_a_device_is_refused_by_all_that_reads(place, capsys, patience, path, stage, flags, make):
    for folder in ((place / path).parent, place / "reviews/neg"):
        folder.mkdir(parents=True, exist_ok=True)
    (place / path).unlink(missing_ok=True)
    make(place / path)
    patience(60)
    line = refused(capsys, stage, flags)
    assert path.split("/")[0] in line or path.startswith("cache/")


@posix
def test_a_state_that_nests_exponentially_is_refused_before_it_is_printed(place, capsys, patience):
    state = checkpoint.load_tensors("stopped/state.pt")
    deep = "deep"
    for _ in range(40):
        deep = [deep, deep]   # 2^40 times "deep", if it is printed
    state["settings"]["lr"] = deep
    torch.save(state, "stopped/state.pt")
    patience(60)
    assert "stopped/state.pt: damaged, or of another program" in refused(
        capsys, "pretrain", "--out stopped --resume")


PIECES = [
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated",
                       "invert": False}),
    ("normalizer", {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 10**6})]


@posix
@pytest.mark.parametrize("part, piece", PIECES, ids=["regex", "replacement"])
def test_a_tokenizer_that_explodes_is_refused_unused(place, capsys, patience, part, piece):
    path = place / "pretrain/tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {part: piece}))
    patience(60)
    assert f"pretrain/tokenizer.json: not a tokenizer (its {part}, " in refused(capsys, "reward", "")


# ---------------------------------------------------------------- links out of the folder

@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["metrics.jsonl", "model.pt", "state.pt", "config.json", "model.pt.part",
                                  "tokenizer.json.part"])
@pytest.mark.parametrize("out, flag", [("stopped", "--overwrite"), ("stopped", "--resume"), ("new", "")])
def test_what_a_link_leads_to_is_left_as_it_is(place, capsys, out, flag, name, link):
    target, path = place / "target", place / out / name
    target.write_text("mine\n")
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    link(target, path)
    before = {file.name: file.read_bytes() for file in (place / out).iterdir()}
    assert f"{out}/{name}: a " in refused(capsys, "pretrain", f"--out {out} {flag}")
    assert {file.name: file.read_bytes() for file in (place / out).iterdir()} == before
    assert target.read_text() == "mine\n"


@pytest.mark.parametrize("name", ["model.pt", "tokenizer.json", "config.json", "state.pt", "comparison.json",
                                  "calibration.json", "report.html", "metrics.jsonl", "model.pt.part"])
@pytest.mark.parametrize("flag", ["", "--resume", "--overwrite"])
def test_a_folder_in_the_way_is_found_before_anything_is_read(place, capsys, monkeypatch, name, flag):
    (place / "new" / name).mkdir(parents=True)
    monkeypatch.setattr("minippo.run.stage.read", lambda name: pytest.fail("read"))
    assert f"new/{name}: a folder, where a file of the run is to be; move it away" in refused(
        capsys, "pretrain", flag)
    assert [path.name for path in (place / "new").iterdir()] == [name]


# ---------------------------------------------------------------- files that ask for too much

def test_a_compressed_model_that_would_fill_the_memory_is_refused_unread(place):
    path = place / "pretrain/model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data/0", "w") as part:
            for _ in range(64):
                part.write(bytes(2**20))   # 64 MiB of zeros in 64 KiB; it could as well be 64 GiB
    assert path.stat().st_size < 2**17
    with pytest.raises(UserError, match="model.pt: not a model file, or damaged"):
        checkpoint.load_lm("pretrain")


def test_a_config_that_asks_for_a_huge_model_allocates_none(place, monkeypatch):
    path = place / "pretrain/config.json"
    about = json.loads(path.read_text())
    about["model"] |= {"width": 2**13, "layers": 9}   # 12 layers width^2: 7.2e9 weights
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="config.json: damaged .*2,000,000,000 weights"):
        checkpoint.load_lm("pretrain")
    for more in ({"layers": 2, "architecture": "seq2seq"},   # 28 layers width^2: 3.8e9
                 {"layers": 1, "context": 2**18}):            # 0.8e9 and context x width: 2.1e9
        path.write_text(json.dumps(about | {"model": about["model"] | more}))
        with pytest.raises(UserError, match="config.json: damaged .*2,000,000,000 weights"):
            checkpoint.load_lm("pretrain")
    about["model"] |= {"layers": 2}   # 1.6e9, 6.4 GB
    path.write_text(json.dumps(about))
    made = []
    monkeypatch.setattr(torch.nn.init, "normal_", lambda x, **rest: made.append(x.device.type))
    with pytest.raises(UserError, match="model.pt does not fit config.json"):
        checkpoint.load_lm("pretrain")
    assert made and set(made) == {"meta"}   # shapes, no memory


# ---------------------------------------------------------------- the archive of the default data

def member(name, data=b"", kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.linkname = len(data), kind, link
    return entry, data


def tar(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


TEXTS = member(snippets.FILES["movies"] + "GroundTruth.txt", b"1\t0.5\tA gem indeed.")
VOTES = member(snippets.FILES["movies"] + "anonDataRatings.txt", b"1\t0.5\t0.5\t[1, 0]")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A function: an archive of these members lies in the cache, and its hash is the right one."""
    def make(*members):
        content = tar(*members)
        monkeypatch.setattr(snippets, "ARCHIVE", like(snippets.ARCHIVE, content))
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / snippets.ARCHIVE.file).write_bytes(content)
        return tmp_path / "cache"
    monkeypatch.chdir(tmp_path)
    return make


def test_members_with_paths_elsewhere_links_and_devices_are_not_unpacked(cached, tmp_path):
    (tmp_path / "secret").write_text("1\t0.5\tsecret")
    strange = [member(str(tmp_path / "trace"), b"absolute"), member("../trace", b"above"),
               member("link", kind=tarfile.SYMTYPE, link=str(tmp_path)),
               member("link/trace", b"through a link"),
               member("hard", kind=tarfile.LNKTYPE, link=str(tmp_path / "secret")),
               member("null", kind=tarfile.CHRTYPE), member("pipe", kind=tarfile.FIFOTYPE)]
    cache = cached(*strange, member(snippets.INNER, tar(*strange, TEXTS, VOTES)))
    assert [row.text for row in read("movies", cache)] == ["a gem indeed."]
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert files == ["cache", "cache/" + snippets.ARCHIVE.file, "secret"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                  tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_link_or_device_in_the_place_of_a_file_is_not_followed(cached, tmp_path, kind):
    (tmp_path / "secret").write_bytes(TEXTS[1])
    disguise = member(TEXTS[0].name, kind=kind, link=str(tmp_path / "secret"))
    cache = cached(member(snippets.INNER, tar(disguise, VOTES)))
    with pytest.raises(UserError, match="has no file .*GroundTruth.txt"):
        read("movies", cache)


def test_an_archive_is_not_opened_before_its_hash_is_right(tmp_path, monkeypatch):
    content = tar(member(snippets.INNER, tar(TEXTS, VOTES)))

    def download(package, folder):
        (folder / package.file).write_bytes(content)

    def opened(*what, **how):
        raise AssertionError("opened")
    monkeypatch.setattr(fetch, "_download", download)
    monkeypatch.setattr(snippets.tarfile, "open", opened)
    with pytest.raises(UserError, match="wrong sha256"):
        read("movies", tmp_path)
