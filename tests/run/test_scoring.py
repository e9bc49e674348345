"""--score: a function of texts in place of a reward model, through the whole of stage 3 and the tools."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import finetune_ppo
from minippo.reward import RewardModel
from minippo.run import checkpoint, scoring
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import parse
from minippo.run.imported import imported, source
from minippo.tokenizer import Tokenizer
from minippo.tokens import pad_left, pad_right
from minippo.tools import compare, microscope
from tests.robustness.world import STAGES, arguments_of, without_times
from tests.tools.folders import put

RULES = '''
def letters(texts):
    return [len(text) for text in texts]

def each(texts):
    return [[0.5] * len(text.tokens) for text in texts]

def fails(texts):
    raise KeyError("no key")

def one(texts):
    return [1.0]

def nan(texts):
    return [float("nan") if i == 1 else 0.0 for i in range(len(texts))]

def leaves(texts):
    raise SystemExit

number = 3
'''


@pytest.fixture
def rules(place):
    """The module `rules_of_mine` in the present folder, its path."""
    path = place / "rules_of_mine.py"
    path.write_text(RULES)
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("rules_of_mine", None)


def arguments(out, flags):
    words = arguments_of("ppo", out) + flags.split()
    return [word for i, word in enumerate(words) if "--reward" not in words[i - 1:i + 1]]


def finetune(out, flags):
    """Run stage 3 in process, without --reward; its record, its settings and its comparison."""
    finetune_ppo.main(parse(finetune_ppo.Config, "", arguments(out, flags)))
    return SimpleNamespace(rows=without_times(Path(out, "metrics.jsonl")),
                           settings=json.loads(Path(out, "config.json").read_text())["settings"],
                           figures=json.loads(Path(out, "comparison.json").read_text()))


# ---------------------------------------------------------------- stage 3

@pytest.mark.parametrize("target, sign", [("positive", 1), ("negative", -1)])
def test_a_function_scores_in_place_of_a_reward_model_which_is_not_read(rules, target, sign):
    (rules.parent / "reward").rename(rules.parent / "elsewhere")
    run = finetune("new", f"--score rules_of_mine:letters --target {target}")
    assert (run.settings["score"], run.settings["reward"]) == ("rules_of_mine:letters", "")
    assert sign * run.rows[0]["objective/scores"] > 0   # a text has letters
    sample = run.figures["samples"][0]
    for model in ("reference", "policy"):   # the report shows the function's own numbers, whatever is sought
        assert sample[model]["score"] == len(sample["prompt"] + sample[model]["text"])
    assert run.figures["policy"]["score"] > 0 and run.figures["best_of_n"]["n"] >= 1
    assert "judge_accuracy" in run.figures   # the judge of rated data stands beside it


def test_the_page_of_such_a_run_names_the_function_and_shows_no_reward_model(rules):
    pytest.importorskip("matplotlib")
    finetune("new", "--score rules_of_mine:letters")
    page = Path("new/report.html").read_text(encoding="utf-8")
    assert "rules_of_mine:letters" in page and "The reward model" not in page


def test_a_list_per_text_pays_every_token_its_own(rules):
    run = finetune("new", "--score rules_of_mine:each --missing-end-score 0 --kl-coef 0")
    row = run.rows[0]
    assert row["objective/scores"] == pytest.approx(0.5 * row["tokens/responses_len_mean"])
    assert row["objective/rlhf_reward"] == row["objective/paid"] == row["objective/scores"]
    length = run.figures["policy"]["length"]
    assert run.figures["policy"]["score"] == pytest.approx(0.5 * length)


def test_a_critic_apart_begins_at_0_on_a_copy_of_the_pretrained_model(rules):
    run = SimpleNamespace(place=lambda model: model)
    config = SimpleNamespace(model="pretrain", reward="", score="rules_of_mine:letters", target="positive",
                             separate_critic=True)
    lm, critic, score, tokenizer = scoring.load(config, run)
    query, response = pad_left([[tokenizer.end, 5]]), pad_right([[6, 7]])
    assert critic.prefix_scores(query, response).tolist() == [[0, 0, 0]]
    assert torch.equal(critic.lm.states(query, response), lm.states(query, response))
    assert critic.lm is not lm and all(p.requires_grad for p in critic.parameters())
    assert score(query, response).tolist() == [len(tokenizer.decode([5, 6, 7]))]
    config.separate_critic = False
    assert scoring.load(config, run)[1] is None


def test_a_run_with_a_critic_apart_is_saved_and_can_be_loaded(rules):
    run = finetune("new", "--score rules_of_mine:letters --separate-critic")
    assert run.rows[0]["ppo/val/mean"] == 0   # of the first rollout
    assert isinstance(checkpoint.load_policy("new")[0].critic, RewardModel)


def stop_before_saving(monkeypatch):
    def stop(*what):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune("new", "--score rules_of_mine:letters")


def test_such_a_run_goes_on_and_not_with_a_function_that_was_changed(rules, monkeypatch, capsys):
    stop_before_saving(monkeypatch)
    whole = finetune("whole", "--score rules_of_mine:letters").rows
    rules.write_text(RULES + "\n# another version\n")
    with pytest.raises(SystemExit, match="2"):
        launch(finetune_ppo.main, finetune_ppo.Config, "",
               arguments("new", "--score rules_of_mine:letters --resume"))
    assert "the data, models, file of --score or device that this run began" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        launch(finetune_ppo.main, finetune_ppo.Config, "",
               arguments("new", "--score rules_of_mine:each --resume"))
    assert "--score was rules_of_mine:letters, now rules_of_mine:each" in capsys.readouterr().err
    rules.write_text(RULES)
    assert finetune("new", "--score rules_of_mine:letters --resume").rows == whole


OTHER = '''
import torch
from minippo.run import checkpoint
from minippo.tokens import pad_left, pad_right

reward_model, tokenizer = checkpoint.load_reward("other-reward")

@torch.no_grad()
def score(texts):
    query = pad_left([[tokenizer.end]] * len(texts))
    rows = [tokenizer.encode(text) + [tokenizer.end] for text in texts]
    return reward_model(query, pad_right(rows))
'''


def test_a_reward_model_with_another_tokenizer_scores_texts(place, capsys):
    tokenizer = Tokenizer.train(["another tokenizer"], 257)
    put(place / "other-reward", "reward", tokenizer, context=400)
    assert tokenizer.bpe.to_str() != checkpoint.load_lm("pretrain")[1].bpe.to_str()
    (place / "judging.py").write_text(OTHER)
    importlib.invalidate_caches()
    try:
        run = finetune("new", "--score judging:score")
    finally:
        sys.modules.pop("judging")
    sample = run.figures["samples"][0]
    text = sample["prompt"] + sample["policy"]["text"]
    model = checkpoint.load_reward("other-reward")[0]
    by_hand = model(torch.tensor([[tokenizer.end]]), torch.tensor([tokenizer.encode(text) + [tokenizer.end]]))
    assert sample["policy"]["score"] == pytest.approx(by_hand.item(), abs=1e-4)


# ---------------------------------------------------------------- mistakes

MISTAKES = {
    "nothing": "--score nothing: no such rule; give module:function",
    "rules_of_mine:": "--score rules_of_mine:: no such rule; give module:function",
    "no_such_module:f": "--score no_such_module:f: ModuleNotFoundError: No module named 'no_such_module'",
    "rules_of_mine:absent": "--score rules_of_mine:absent: AttributeError",
    "rules_of_mine:number": "--score rules_of_mine:number is no function; give one of a list of texts",
    "rules_of_mine:fails": "--score rules_of_mine:fails: KeyError: 'no key' (line ",
    "rules_of_mine:leaves": "rules_of_mine.py); it takes a list of texts, and a response may be empty",
    "rules_of_mine:one": "the score function one must give a number per text, or per token a list of lists: "
                         "1 of shapes [[]] for 4 texts",
    "rules_of_mine:nan": "--score rules_of_mine:nan gave NaN or infinity for the text '",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_wrong_with_a_function_is_one_line(rules, capsys, name):
    with pytest.raises(SystemExit, match="2"):
        launch(finetune_ppo.main, finetune_ppo.Config, "", arguments("new", f"--score {name}"))
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and MISTAKES[name] in line
    assert not Path("new/model.pt").exists()


def test_what_our_own_scores_say_is_wrong_is_said_as_it_is(rules, capsys):
    with rules.open("a") as file:
        file.write("\n\nfrom minippo.corpora.chrf import against\ntrue = against('data.csv')\n")
    with pytest.raises(SystemExit, match="2"):
        launch(finetune_ppo.main, finetune_ppo.Config, "", arguments("new", "--score rules_of_mine:true"))
    *_, line = capsys.readouterr().err.splitlines()
    assert line.endswith("is no prompt of data.csv, its true text is unknown; "
                         "give --data data.csv, and a prompt to each of its rows")


def test_so_is_what_a_module_of_the_user_s_meets_of_ours_while_it_is_imported(rules):
    Path("judging_nothing.py").write_text("from minippo.run import checkpoint\n"
                                          "model = checkpoint.load_reward('nowhere')\n")
    with pytest.raises(UserError, match="^nowhere: no trained model here"):
        imported("--score", "judging_nothing:score", "")


def test_a_module_that_ends_the_program_is_a_mistake_too(rules):
    Path("quits.py").write_text("import sys\nsys.exit()\n")
    with pytest.raises(UserError, match="--score quits:score: SystemExit: ; give module:function that"):
        imported("--score", "quits:score", "")


def test_a_module_is_found_in_the_present_folder_and_its_file_is_known(rules):
    assert imported("--score", "rules_of_mine:letters", "")(["abc"]) == [3]
    assert Path(source("rules_of_mine:letters")).resolve() == rules.resolve()
    assert source("sys:exit") == source("never_imported:f") == ""


# ---------------------------------------------------------------- tools

def run_tool(tool, words):
    launch(tool.main, tool.Config, "", [*words.split(), "--device", "cpu"])


@pytest.mark.parametrize("tool, words", [(compare, "pretrain new --best-of 2 --prompts 8"),
                                         (microscope, "new --rollout-size 8")])
def test_a_tool_imports_the_function_that_its_flag_names_and_none_that_a_file_names(
        rules, capsys, tool, words):
    finetune("new", "--score rules_of_mine:letters")
    sys.modules.pop("rules_of_mine")
    with pytest.raises(SystemExit, match="2"):
        run_tool(tool, words)
    assert "new was scored by 'rules_of_mine:letters'; give it by --score" in capsys.readouterr().err
    assert "rules_of_mine" not in sys.modules
    run_tool(tool, f"{words} --score rules_of_mine:letters")
    assert "rules_of_mine" in sys.modules


def test_models_are_compared_by_the_function_or_by_a_reward_model(rules, capsys):
    finetune("new", "--score rules_of_mine:each --missing-end-score 0")
    run_tool(compare, "pretrain new --best-of 0 --prompts 8 --score rules_of_mine:each --json new.json")
    figures = json.loads(Path("new.json").read_text())["models"]["new"]
    assert figures["score"] == pytest.approx(0.5 * figures["length"])
    assert "reference pretrain, score rules_of_mine:each." in capsys.readouterr().out
    run_tool(compare, "pretrain new --best-of 0 --prompts 8 --reward reward")
    assert "reference pretrain, reward model reward." in capsys.readouterr().out


def test_the_microscope_shows_the_total_of_scores_per_token(rules):
    finetune("new", "--score rules_of_mine:each --missing-end-score 0")
    words = "new --rollout-size 8 --device cpu --score rules_of_mine:each"
    config = parse(microscope.Config, "", words.split())
    for look in microscope.looks_of(config, "new")[0].values():
        assert look.scores.tolist() == pytest.approx((0.5 * look.rollout.mask.sum(1)).tolist())
        assert look.paid.tolist() == look.scores.tolist()


def test_the_world_s_own_stage_has_a_reward_model():
    assert "--reward reward" in STAGES["ppo"][1]   # what `arguments` takes away
