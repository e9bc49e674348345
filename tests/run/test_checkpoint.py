"""A stage's folder: there and back, and every kind of damage, which is named and runs nothing."""

import copy
import io
import json
import os
import pickle
import re
import shutil
import time
import zipfile
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from minippo.policy import ActorCritic
from minippo.ppo import PPOConfig
from minippo.reward import RewardModel
from minippo.run.checkpoint import (
    check_settings,
    load_both,
    load_lm,
    load_policy,
    load_reward,
    load_tensors,
    load_tokenizer,
    model_hashes,
    read_config,
    save,
    save_tensors,
)
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from minippo.transformer import TransformerConfig, build
from tests.robustness.posix import posix

TOKENIZER = Tokenizer.train(["a film"], 257)
QUERY, RESPONSE = torch.tensor([[0, 3, 4], [0, 5, 6]]), torch.tensor([[7, 0], [8, 9]])
LOADERS = {"pretrain": load_lm, "reward": load_reward, "ppo": load_policy}


@dataclass
class Settings:
    temperature: float = 0.5


def make(stage, architecture="decoder"):
    """The model of a stage; "critic" is a policy with a critic of its own."""
    config = TransformerConfig(257, 0, architecture, width=8, heads=2, layers=1, context=16)
    lm = build(config).eval()
    if stage == "pretrain":
        return lm
    reward = RewardModel(copy.deepcopy(lm)).eval()
    reward.normalize(torch.tensor([1., 5.]))
    if stage == "reward":
        return reward
    policy = ActorCritic(lm, reward if stage == "critic" else None, 0.5).eval()
    if stage == "ppo":
        torch.nn.init.normal_(policy.value_head.weight)
    return policy


def stage_of(kind):
    return {"critic": "ppo"}.get(kind, kind)


def saved(folder, kind="pretrain", architecture="decoder"):
    model = make(kind, architecture)
    save(folder, stage_of(kind), model, TOKENIZER, Settings())
    return model


@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
@pytest.mark.parametrize("kind", ["pretrain", "reward", "ppo", "critic"])
def test_what_was_saved_is_loaded(tmp_path, kind, architecture):
    model = saved(tmp_path, kind, architecture).train()
    loaded, tokenizer = LOADERS[stage_of(kind)](tmp_path)
    assert type(loaded) is type(model) and not loaded.training and model.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for ours, theirs in zip(outputs(loaded), outputs(model)):
        assert torch.equal(ours, theirs)
    assert tokenizer.encode("a film") == TOKENIZER.encode("a film")


def outputs(model):
    out = model(QUERY, RESPONSE)
    return out if isinstance(out, tuple) else [out]


@pytest.mark.parametrize("kind", ["ppo", "critic"])
def test_d06_a_policy_keeps_its_temperature(tmp_path, kind):
    saved(tmp_path, kind)
    assert load_policy(tmp_path)[0].temperature == 0.5


@pytest.mark.parametrize("kind", ["pretrain", "reward", "ppo", "critic"])
def test_every_folder_holds_a_language_model(tmp_path, kind):
    model = saved(tmp_path, kind)
    lm, _ = load_lm(tmp_path)
    assert torch.equal(lm(QUERY, RESPONSE), getattr(model, "lm", model)(QUERY, RESPONSE))


def test_the_config_file_is_for_people_to_read(tmp_path):
    saved(tmp_path, "reward", "seq2seq")
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["stage"] == "reward" and about["settings"] == about["defaults"] == {"temperature": 0.5}
    assert about["model"]["architecture"] == "seq2seq" and about["model"]["width"] == 8


# Damage

def edit(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


def truncate(path):
    path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])


def other_width(path):
    config = TransformerConfig(257, 0, width=16, heads=2, layers=1, context=16)
    save_tensors(path, build(config).state_dict())


@pytest.mark.parametrize("name, damage, message", [
    ("config.json", lambda path: path.unlink(), "no trained model here"),
    ("config.json", lambda path: path.write_text("garbage"), "config.json: damaged"),
    ("config.json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "config.json: damaged"),
    ("config.json", lambda path: path.write_text("[]"), "config.json: damaged"),
    ("config.json", lambda path: path.write_text('{"stage": "pretrain"}'), "config.json: damaged"),
    ("config.json", edit("pretrain", "dance"), "damaged"),
    ("config.json", edit("decoder", "rnn"), "damaged.*none of"),
    ("tokenizer.json", lambda path: path.unlink(), "tokenizer.json: cannot be read"),
    ("tokenizer.json", lambda path: path.write_text("garbage"), "tokenizer.json: not a tokenizer"),
    ("model.pt", lambda path: path.unlink(), "model.pt: cannot be read"),
    ("model.pt", lambda path: path.write_bytes(b""), "model.pt: not a model file, or damaged"),
    ("model.pt", lambda path: path.write_text("garbage"), "model.pt: not a model file, or damaged"),
    ("model.pt", truncate, "model.pt: (not a model file, or damaged|cannot be read)"),
    ("model.pt", other_width, "model.pt does not fit config.json"),
    ("model.pt", lambda path: save_tensors(path, [1, 2]), "model.pt does not fit config.json"),
])
def test_damage_is_named_and_no_traceback(tmp_path, name, damage, message):
    saved(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        load_lm(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind, load, message", [
    ("pretrain", load_reward, "model of pretrain.py; needed is one of train_reward.py"),
    ("ppo", load_reward, "model of finetune_ppo.py; needed is one of train_reward.py"),
    ("pretrain", load_policy, "model of pretrain.py; needed is one of finetune_ppo.py"),
    ("reward", load_policy, "model of train_reward.py; needed is one of finetune_ppo.py")])
def test_a_folder_of_another_stage_says_which_script_to_run(tmp_path, kind, load, message):
    saved(tmp_path, kind)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("kind, other", [("pretrain", "reward"), ("reward", "pretrain"),
                                         ("reward", "ppo"), ("ppo", "reward"), ("ppo", "pretrain")])
def test_a_model_file_of_another_stage_does_not_fit(tmp_path, kind, other):
    saved(tmp_path, kind)
    save_tensors(tmp_path / "model.pt", make(other).state_dict())
    with pytest.raises(UserError, match="model.pt does not fit config.json"):
        LOADERS[kind](tmp_path)


@pytest.mark.parametrize("number", [-1, 257])
def test_a_token_that_counts_as_none_of_the_vocabulary_does_not_fit(tmp_path, number):
    weights = saved(tmp_path, "reward").state_dict()
    weights["words.spaced"][5] = number
    save_tensors(tmp_path / "model.pt", weights)
    with pytest.raises(UserError, match="does not fit config.json .words.spaced has numbers of no token"):
        load_reward(tmp_path)


@pytest.mark.parametrize("kind", ["reward", "ppo"])
@pytest.mark.parametrize("content", [torch.zeros(2), [1]])
def test_a_model_file_without_names_does_not_fit(tmp_path, kind, content):
    saved(tmp_path, kind)
    save_tensors(tmp_path / "model.pt", content)
    with pytest.raises(UserError, match="model.pt"):
        load_lm(tmp_path)


def test_a_policy_of_a_loop_of_one_s_own_is_saved_with_its_temperature(tmp_path):
    lm = build(TransformerConfig(TOKENIZER.vocab_size, TOKENIZER.end, width=8, heads=2, layers=1))
    save(tmp_path / "mine/new", "ppo", ActorCritic(lm, temperature=0.7), TOKENIZER, PPOConfig())
    assert load_policy(tmp_path / "mine/new")[0].temperature == 0.7


@pytest.mark.parametrize("damage", [("temperature", "warmth"), *(
    ("0.5", value) for value in ("0", "5e-324", "1" + 30 * "0", "NaN", '"0.5"'))])
def test_a_policy_without_a_temperature_that_a_run_can_have_is_damaged(tmp_path, damage):
    saved(tmp_path, "ppo")
    edit(*damage)(tmp_path / "config.json")
    with pytest.raises(UserError, match="config.json"):
        load_policy(tmp_path)


@pytest.mark.parametrize("damage", [('"heads": 2', '"heads": 0'), ('"width": 8', '"width": -8'),
                                    ('"layers": 1', '"layers": "x"')])
def test_sizes_that_build_no_model_are_damage(tmp_path, damage):
    saved(tmp_path)
    edit(*damage)(tmp_path / "config.json")
    with pytest.raises(UserError, match="config.json"):
        load_lm(tmp_path)


def test_the_tokenizer_of_another_model_is_refused(tmp_path):
    saved(tmp_path)
    Tokenizer.train(["many longer words"] * 9, 290).save(tmp_path)
    with pytest.raises(UserError, match="tokenizer.json"):
        load_lm(tmp_path)


def test_a_critic_of_another_size_than_the_actor_is_loaded(tmp_path):
    wide = build(TransformerConfig(257, 0, width=16, heads=2, layers=1, context=16))
    policy = ActorCritic(make("pretrain"), RewardModel(wide)).eval()
    save(tmp_path, "ppo", policy, TOKENIZER, Settings())
    assert torch.equal(load_policy(tmp_path)[0](QUERY, RESPONSE)[1], policy(QUERY, RESPONSE)[1])


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=re.escape("run the script that makes it (pretrain.py or "
                                                  "train_reward.py or finetune_ppo.py), or name its folder")):
        load_lm(tmp_path / "nowhere")


class Payload:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [partial(pickle.dump, protocol=2), torch.save])
def test_code_hidden_in_a_model_file_is_not_run(tmp_path, write):
    saved(tmp_path)
    trace, file = tmp_path / "trace", io.BytesIO()
    write({"embedding.weight": Payload(trace)}, file)
    (tmp_path / "model.pt").write_bytes(file.getvalue())
    with pytest.raises(UserError, match="model.pt: not a model file"):
        load_lm(tmp_path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace))).close()
    assert trace.exists()   # the payload would have worked


# What would never end

@pytest.mark.parametrize("kind", ["pretrain", "reward", "ppo", "critic"])
@pytest.mark.parametrize("name", ["model.pt", "tokenizer.json", "config.json"])
def test_a_file_of_gigabytes_is_refused_unread(tmp_path, name, kind):
    saved(tmp_path, kind)
    os.truncate(tmp_path / name, 2**34)   # 16 GiB, hardly any of them on the disk
    start = time.monotonic()
    with pytest.raises(UserError, match=f"{name}.*17,179,869,184 bytes, more than the"):
        LOADERS[stage_of(kind)](tmp_path)
    assert time.monotonic() - start < 5


@posix
@pytest.mark.parametrize("name, message", [
    ("model.pt", "model.pt: cannot be read .no regular file but a pipe or a device"),
    ("tokenizer.json", "tokenizer.json: cannot be read .no regular file but a pipe or a device"),
    ("config.json", "no trained model here .no config.json")])
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")],
                         ids=["fifo", "device"])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, name, message, make):
    saved(tmp_path)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(UserError, match=message):
        load_lm(tmp_path)


def test_a_model_may_be_a_link_to_a_file(tmp_path):
    model = saved(tmp_path / "old")
    (tmp_path / "new").mkdir()
    for path in (tmp_path / "old").iterdir():
        (tmp_path / "new" / path.name).symlink_to(path)
    loaded, _ = load_lm(tmp_path / "new")
    assert torch.equal(loaded(QUERY, RESPONSE), model(QUERY, RESPONSE))
    assert model_hashes(tmp_path / "new") == model_hashes(tmp_path / "old") != model_hashes(tmp_path / "none")
    assert model_hashes(tmp_path / "none") == ["", ""]
    assert read_config(tmp_path / "new")["stage"] == "pretrain"
    assert load_tokenizer(tmp_path / "new").vocab_size == 257


def test_the_critic_counts_for_the_size_of_its_file(tmp_path):
    # the critic has 1024 / 8 times the width: a file of some 50 MB, that of the actor alone has 10 KB
    wide = build(TransformerConfig(257, 0, width=1024, heads=2, layers=1, context=16))
    save(tmp_path, "ppo", ActorCritic(make("pretrain"), RewardModel(wide)), TOKENIZER, Settings())
    load_policy(tmp_path), load_lm(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    del about["critic"]
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="model.pt: cannot be read .* bytes, more than the"):
        load_policy(tmp_path)


def doubled(times):
    """[x, x], where x is [y, y], and so on: to print it takes 2 ** times steps."""
    x = "deep"
    for _ in range(times):
        x = [x, x]
    return x


def test_values_that_nest_exponentially_are_refused(tmp_path):
    save_tensors(tmp_path / "x.pt", {"x": doubled(40)})
    with pytest.raises(UserError, match="x.pt: not a model file, or damaged .more values, or nested deeper"):
        load_tensors(tmp_path / "x.pt")


def test_parts_of_a_model_file_that_overlap_are_not_read_one_by_one(tmp_path):
    # 2,000 names for the same megabyte: 2 GB to check in a file of 1 MB
    path, part = tmp_path / "x.pt", zipfile.ZipInfo("x")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(part, bytes(2**20))
        for i in range(2000):
            again = copy.copy(part)
            again.filename = again.orig_filename = f"x{i}"
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 2001 and path.stat().st_size < 2**21
    with pytest.raises(UserError, match="or damaged .it says that it holds more than it does"):
        load_tensors(path)


@pytest.mark.parametrize("old, shown", [
    (doubled(60), "[['...', '...'], ['...', '...']]"), ("toy" * 10**6, "toytoy"), (10**3000, "1000"),
    ({"a": doubled(60)}, "{'a'"), (None, "None"), (0.25, "0.25"), ("cpu", "cpu")])
def test_a_setting_is_compared_without_printing_and_shown_short(old, shown):
    start = time.monotonic()
    with pytest.raises(UserError, match="--data was ") as caught:
        check_settings("x", {"data": old, "seed": 0}, {"data": "movies", "seed": 0})
    message = str(caught.value)
    assert len(message) < 2000 and "; give the same to go on" in message and time.monotonic() - start < 1
    assert message.split("--data was ")[1].startswith(shown[:2]) and "now movies" in message
    assert "--seed" not in message


# Writing

def test_no_partial_file_is_left_behind(tmp_path):
    saved(tmp_path, "ppo")
    saved(tmp_path, "ppo")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "tokenizer.json", "model.pt"}


def test_a_write_that_breaks_off_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    save_tensors(path, {"x": torch.ones(2)})

    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="model.pt: cannot be written .No space left on device"):
        save_tensors(path, {"x": torch.zeros(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
    assert load_tensors(path)["x"].tolist() == [1, 1]


def test_a_save_that_breaks_off_leaves_the_old_folder_whole(tmp_path, monkeypatch):
    saved(tmp_path, "reward")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(source, target):
        raise OSError(30, "Read-only file system")
    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(UserError, match="Read-only file system"):
        saved(tmp_path, "pretrain")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_reward_model_that_was_trained_from_another_model_is_noted(place, tmp_path, capsys):
    load_both("pretrain", "reward")
    load_both(place / "pretrain", "reward")   # another name of what its settings say
    assert capsys.readouterr().err == ""
    shutil.copytree("reward", tmp_path / "odd")
    about = json.loads((tmp_path / "odd/config.json").read_text())
    for odd in (5, None, "a\0b/pretrain"):
        about["settings"]["model"] = odd
        (tmp_path / "odd/config.json").write_text(json.dumps(about))
        load_both("pretrain", tmp_path / "odd")
    assert capsys.readouterr().err == ""
    shutil.copytree("pretrain", tmp_path / "other")
    load_both(tmp_path / "other", "reward")
    assert capsys.readouterr().err.startswith("note: reward was trained from pretrain, not from ")
