"""The three scripts in order, as a person runs them, on a tiny model and the toy corpus."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import finetune_ppo
from minippo.run.exits import launch
from minippo.tools.shared.page import escaped
from tests.outside import ROOT, environment
from tests.robustness.world import without_times

pytestmark = pytest.mark.slow
SMALL = "--seed 3 --data toy --device cpu --precision fp32"
STAGES = [
    ("pretrain.py", "--passes 1 --width 32 --heads 2 --layers 1 "
                    "--vocab-size 400 --samples 2 --batch-size 32"),
    ("train_reward.py", "--passes 1 --model runs/pretrain --normalize-samples 256"),
    ("finetune_ppo.py", "--iterations 3 --rollout-size 32 --minibatch-size 16 "
                        "--model runs/pretrain --reward runs/reward"),
]
OBJECTIVE = {"objective/kl", "objective/scores", "objective/paid", "ppo/loss/policy", "ppo/loss/value",
             "ppo/loss/total", "ppo/policy/entropy", "ppo/policy/clipfrac", "ppo/policy/approxkl",
             "ppo/val/var_explained", "ppo/returns/mean", "tokens/responses_len_mean",
             "time/seconds", "time/tokens_per_second", "memory/peak_mb"}


def command(folder, *words):
    """Run a script or module of the project in a folder; returns the finished process."""
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment(),
                          capture_output=True, text=True)


def stages_of(architecture):
    """The names of the three scripts, each with its flags."""
    for name, flags in STAGES:
        extra = f" --architecture {architecture}" if name == "pretrain.py" else ""
        yield name, f"{SMALL} {flags}{extra}".split()


def run_stages(folder, architecture):
    outputs = []
    for name, flags in stages_of(architecture):
        done = command(folder, str(ROOT / name), *flags)
        assert done.returncode == 0, done.stderr
        outputs.append(done)
    return outputs


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module", params=["decoder", "seq2seq"])
def finished(request, tmp_path_factory):
    """A folder in which the three stages have run, and what each printed."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, run_stages(folder, request.param), request.param


def test_each_stage_writes_its_folder(finished):
    folder, _, architecture = finished
    for stage in ("pretrain", "reward", "ppo"):
        files = {path.name for path in (folder / "runs" / stage).iterdir()}
        assert {"config.json", "tokenizer.json", "model.pt", "metrics.jsonl"} <= files
        assert not any(name.endswith(".part") for name in files)
        about = json.loads((folder / "runs" / stage / "config.json").read_text())
        assert about["model"]["architecture"] == architecture
    assert (folder / "runs/reward/calibration.json").exists()


def test_the_last_line_of_ppo_names_its_page_which_shows_what_was_printed(finished):
    pytest.importorskip("matplotlib")
    folder, outputs, _ = finished
    *_, last = outputs[2].stdout.splitlines()
    page = Path("runs/ppo/report.html")
    assert last == f"written: {page.parent}; open {page} in a browser"
    text = (folder / page).read_text(encoding="utf-8")
    sample = json.loads((folder / "runs/ppo/comparison.json").read_text())["samples"][0]
    assert escaped(sample["policy"]["text"].strip()) in text and "Accuracy by margin" in text
    assert "3 (default 60)" in text   # --iterations


def test_prompts_of_more_than_half_the_context_are_pretrained_on(tmp_path):
    pairs = [{"prompt": f"{i:>70}", "chosen": "yes", "rejected": "no"} for i in range(300)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    flags = f"{SMALL.replace('toy', 'pairs.jsonl')} {STAGES[0][1]} --vocab-size 257"   # bytes
    done = command(tmp_path, str(ROOT / "pretrain.py"), *flags.split())
    assert done.returncode == 0 and "note:" not in done.stderr, done.stderr


def test_texts_that_do_not_fit_into_the_context_are_counted(tmp_path):
    texts = [f"{i:0>{200 if i % 2 else 20}}" for i in range(300)]   # bytes; every other is too long
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    flags = f"{SMALL.replace('toy', 'texts.txt')} {STAGES[0][1]} --vocab-size 257"
    done = command(tmp_path, str(ROOT / "pretrain.py"), *flags.split())
    long, count = map(int, re.match(r"note: (\d+) of (\d+) texts do not fit into --context 128 ",
                                    done.stderr).groups())
    assert 240 < count < 290 and 0.4 < long / count < 0.6   # nine tenths are trained on


def test_ppo_logs_one_object_per_iteration_with_the_usual_keys(finished):
    metrics = lines(finished[0] / "runs/ppo/metrics.jsonl")
    assert [line["iteration"] for line in metrics] == [0, 1, 2]
    assert all(OBJECTIVE <= line.keys() for line in metrics)


def test_d20_the_first_iteration_has_no_kl(finished):
    assert abs(lines(finished[0] / "runs/ppo/metrics.jsonl")[0]["objective/kl"]) < 1e-4


def test_each_stage_says_what_a_person_wants_to_know(finished):
    pretraining, reward, ppo = (done.stdout for done in finished[1])
    assert "nats per token" in pretraining and "per word" in pretraining
    assert "people's ceiling" in reward and "bag of words" in reward
    assert "calibration error" in reward
    assert "reference: score" in ppo and "policy: score" in ppo
    assert "judged positive" in ppo and "distinct-2" in ppo


def test_d40_the_pretrained_and_the_reward_model_are_not_touched_by_ppo(finished, tmp_path, monkeypatch):
    folder = finished[0]
    monkeypatch.chdir(folder)
    models = [folder / "runs" / stage / "model.pt" for stage in ("pretrain", "reward")]
    before = [model.read_bytes() for model in models]
    flags = f"{SMALL} --iterations 1 --rollout-size 8 --minibatch-size 8 --target negative --separate-critic"
    launch(finetune_ppo.main, finetune_ppo.Config, "", [*flags.split(), "--out", str(tmp_path / "again")])
    assert before == [model.read_bytes() for model in models]


def test_generate_writes_n_texts_that_begin_with_the_prompt(finished):
    done = command(finished[0], "-m", "minippo", "generate", "--model", "runs/ppo",
                   "--prompt", "the soup", "--n", "3")
    assert done.returncode == 0, done.stderr
    texts = done.stdout.splitlines()
    assert len(texts) == 3 and all(text.startswith("the soup") for text in texts)


def test_d42_the_same_seed_gives_the_same_bytes(finished, tmp_path, monkeypatch, capsys):
    folder, outputs, architecture = finished
    monkeypatch.chdir(tmp_path)
    for (name, flags), done in zip(stages_of(architecture), outputs):
        script = import_module(name.removesuffix(".py"))   # in this process: sets have another order
        launch(script.main, script.Config, "", flags)
        assert capsys.readouterr().out == done.stdout
    for stage in ("pretrain", "reward", "ppo"):
        one, other = folder / "runs" / stage, tmp_path / "runs" / stage
        assert (one / "model.pt").read_bytes() == (other / "model.pt").read_bytes()
        assert without_times(one / "metrics.jsonl") == without_times(other / "metrics.jsonl")


def test_a_stage_in_the_wrong_order_says_which_comes_first(tmp_path):
    done = command(tmp_path, str(ROOT / "finetune_ppo.py"), *SMALL.split())
    assert done.returncode == 2 and "runs/pretrain" in done.stderr
    assert len(done.stderr.splitlines()) == 1
