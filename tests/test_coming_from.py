"""docs/coming-from.md: its snippets and commands run, in order, and do what the page says."""

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from minippo.corpora.toy import toy
from minippo.run import checkpoint
from minippo.run.commands import COMMANDS, tool
from minippo.run.exits import launch
from minippo.tools.shared import runs
from tests.bridges.gpt2_by_hand import folder_of
from tests.outside import ROOT
from tests.robustness.world import STAGES

PAGE = (ROOT / "docs/coming-from.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
GPT2, REVIEWS, TRAINER, SEQ2SEQ, DIALOG = list(SECTIONS)[:5]
SCRIPTS = {f"{script.__name__}.py": (script, flags) for script, flags in STAGES.values()}


def blocks(section):
    """The indented blocks of a section, without the indent."""
    found = re.findall(r"(?:^(?:    .*)?\n)+", SECTIONS[section], flags=re.M)
    return [re.sub("^    ", "", block, flags=re.M).strip("\n") + "\n" for block in found if block.strip()]


def is_commands(block):
    return block.startswith("python ")


def sized(name):
    """The flags that make a stage small, but for those that name folders; and the data of the tests."""
    flags = re.sub(r"--(model|reward) \S+", "", SCRIPTS[name][1]).split()
    return [*flags, "--data", "data.csv", "--device", "cpu", "--precision", "fp32"]


NEEDS = {"report": "matplotlib", "export-gpt2": "safetensors"}   # what not everybody has installed


def command(line):
    """Run a command of the page in process, a script with the flags that make it small."""
    python, *words = shlex.split(line)
    assert python == "python"
    if words[:2] == ["-m", "minippo"]:
        if (package := NEEDS.get(words[2])) and not importlib.util.find_spec(package):
            return
        module = tool(words[2])
        device = ["--device", "cpu"] if hasattr(module.Config, "device") else []
        launch(module.main, module.Config, "", words[3:] + device)
    else:
        script = SCRIPTS[words[0]][0]
        launch(script.main, script.Config, "", words[1:] + sized(words[0]))


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """Where the three scripts have run: `runs/`, their data, and a GPT-2; modules are forgotten."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for stage in STAGES:
        shutil.copytree(stage, f"runs/{stage}")
    for sign, rows in (("pos", toy(40)), ("neg", toy(80)[40:])):
        Path("reviews", sign).mkdir(parents=True)
        for i, row in enumerate(rows):
            Path("reviews", sign, f"{i}.txt").write_text(row.text)
    folder_of(Path("gpt2"))
    monkeypatch.setenv("MINIPPO_CACHE", str(tmp_path / "nothing"))   # nothing is downloaded
    torch.manual_seed(0)
    before = set(sys.modules)
    yield
    for name in ("sentiment", "judging"):
        if name not in before:
            sys.modules.pop(name, None)


def run(section):
    """Run a section's snippets and commands in their order; what its names stand for then, a dict."""
    names = {"__name__": "snippet"}
    for block in blocks(section):
        if file := re.match(r"# (\w+\.py)\n", block):
            Path(file.group(1)).write_text(block)
            importlib.invalidate_caches()
        elif is_commands(block):
            for line in re.split(r" && |\n", block.strip()):
                command(line)
        else:
            block = block.replace('| {"lr": 5e-5', '| {"iterations": 1, "lr": 5e-5')
            exec(compile(block, section, "exec"), names)
    return names


def settings(name):
    return json.loads(Path("runs", name, "config.json").read_text())["settings"]


# ---------------------------------------------------------------- the five sections

def test_gpt2_with_a_text_generation_environment(folder, capsys):
    names = run(GPT2)
    assert names["terminated"] != names["truncated"]
    assert names["info"]["text"].startswith("the film") and names["info"]["score"] <= -1
    assert names["probabilities"].sum().item() == pytest.approx(1, abs=1e-5)
    # before any update policy and reference are equal: no token but the last is paid anything
    assert names["rewards"][-1] == pytest.approx(names["info"]["score"], rel=1e-5)
    assert names["rewards"][:-1] == pytest.approx([0.0] * (len(names["rewards"]) - 1), abs=1e-5)
    assert len(names["rewards"]) == names["environment"].response.shape[1] <= 16
    assert names["learned"]["ppo/policy/ratio"] == pytest.approx(1, abs=0.1)
    assert isinstance(names["text"], str) and names["gain"].shape == (8,) and names["loss"].item() > 0
    assert checkpoint.load_policy("runs/fluent")[0].temperature == 0.8


def test_movie_reviews_with_a_sentiment_reward(folder, capsys):
    run(REVIEWS)
    assert settings("by-rule")["schedule"] == "cosine" and settings("by-rule")["reward"] == ""
    assert settings("again") == settings("by-rule") | {"lr": 5e-5}
    assert settings("by-token")["score"] == "sentiment:each"
    out = capsys.readouterr().out
    assert out.count("the film is |") == 5 and "score sentiment:score." in out
    import judging
    import sentiment
    assert sentiment.score(["a great, good good film", "bad"]) == [2, 0]   # "great," is another word
    model, tokenizer = checkpoint.load_reward("runs/reward")
    good = torch.tensor([tokenizer.encode("good") + [tokenizer.end]])
    by_hand = model(torch.tensor([[tokenizer.end]]), good)
    assert judging.score(["good", "good " * 200])[0].item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_a_library_s_trainer(folder, capsys):
    names = run(TRAINER)
    assert [stats.keys() == {"ppo/loss/policy", "ppo/loss/value", "ppo/loss/total"}
            for stats in names["objective"]] == [True, True]
    for stats in names["history"]:   # what `step` was given is what is paid
        assert stats["objective/paid"] == stats["objective/scores"]
    assert len(names["history"]) == len(names["rl"]) == 2 and names["rl"][0]["objective/kl"] == 0
    for stats in names["rl"]:
        difference = stats["ppo/returns/mean"] - stats["ppo/val/mean"]
        assert stats["advantages"] == pytest.approx(difference, abs=1e-5)
    assert "generate" not in vars(names["policy"])   # writes itself again
    assert 4 <= names["length"] <= 16 and names["rollout"].response.shape[1] <= names["length"]
    assert names["seen"]["objective/scores"] == names["seen"]["tokens/responses_len_mean"]
    assert [settings(name)["target"] for name in ("positive", "negative")] == ["positive", "negative"]
    out = capsys.readouterr().out
    assert all(out.count(f"{name:<13}  the film is |") == 2
               for name in ("runs/positive", "runs/pretrain", "runs/negative"))
    assert "won by score" in out
    if importlib.util.find_spec("matplotlib"):
        assert "Total loss and mean reward" in Path("both.html").read_text(encoding="utf-8")
    assert "ppo/loss/total" in runs.record("runs/negative")[-1]
    assert checkpoint.load_policy("runs/gpt2-ppo")[0].lm.config == checkpoint.load_lm("runs/gpt2")[0].config
    if importlib.util.find_spec("safetensors"):
        assert Path("gpt2-ppo/model.safetensors").is_file()


def test_ppo_for_a_sequence_to_sequence_transformer(folder, capsys):
    names = run(SEQ2SEQ)
    assert names["lm"].config.architecture == "seq2seq" and (names["query"] == names["tokenizer"].end).any()
    assert names["ratings"].mean().item() == pytest.approx(0, abs=1e-6)
    for stage, loss in (("s2s", None), ("s2s-reward", "regression"), ("s2s-ppo", None)):
        assert checkpoint.read_config(f"runs/{stage}")["model"]["architecture"] == "seq2seq"
        assert loss is None or settings(stage)["loss"] == loss
    assert [settings("s2s-ppo")[key] for key in ("clip", "gamma", "epochs")] == [0.2, 0.99, 4]


def test_an_instructgpt_style_dialog_agent(folder, capsys):
    names = run(DIALOG)
    batch = names["batch"]
    assert torch.allclose(names["advantages"], batch.advantages)
    assert torch.equal(names["returns"], batch.returns)
    config = names["config"]
    assert (config.clip, config.entropy_coef, config.value_coef) == (0.1, 0.01, 0.1)
    assert not any(p.requires_grad for p in names["reference"].parameters())
    assert len(names["prompts"].examples) == 80 and names["loss"].item() > 0
    assert names["stats"].keys() >= {"ppo/loss/policy", "ppo/loss/value", "ppo/loss/total"}


# ---------------------------------------------------------------- the page itself

def test_every_section_has_its_tables_and_snippets_and_every_command_exists():
    for section in (GPT2, REVIEWS, TRAINER, SEQ2SEQ, DIALOG):
        assert "| there | here |" in SECTIONS[section]
        assert "| what goes wrong in such programs | here |" in SECTIONS[section]
        assert blocks(section)
    named = re.findall(r"python -m minippo ([\w-]+)", PAGE)
    assert set(named) == {"generate", "compare", "report", "import-gpt2", "export-gpt2"} <= COMMANDS.keys()


def test_a_block_keeps_its_own_indents_and_empty_lines(monkeypatch):
    text = "some\n\n    def f():\n        return 1\n\n    x = f()\n\nmore\n\n    y\n"
    monkeypatch.setitem(SECTIONS, "two", text)
    assert blocks("two") == ["def f():\n    return 1\n\nx = f()\n", "y\n"]
