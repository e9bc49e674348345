"""A dataclass is the command line, a mistake on it is one line, and an exit status says what it was."""

import signal
from dataclasses import dataclass, fields

import pytest

import finetune_ppo
import pretrain
import train_reward
from minippo.data import DataError
from minippo.run.commands import COMMANDS, main, tool
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import DATA, MODEL, RUN, DeviceConfig, StageConfig, numbers, option, parse, words
from minippo.run.stage_3 import Stage3
from minippo.training import NonFiniteError

STAGES = [pretrain, train_reward, finetune_ppo]
MODULES = STAGES + [tool(name) for name in COMMANDS]


@dataclass
class Config(DeviceConfig):
    count: int = option(3, "how many", low=1)
    share: float = option(0.5, "how much", low=0, high=1)
    any_number: float = option(1.0, "without limits")
    name: str = option("", "any text")
    mode: str = option("fast", "which", choices=("fast", "slow"))
    flag: bool = option(False, "whether")


def given(line):
    return parse(Config, "A test.", line.split())


def test_without_flags_the_defaults_hold():
    assert given("") == Config()


def test_flags_set_fields_of_their_types():
    config = given("--count 7 --share 1 --any-number -2.5 --name x --mode slow --flag --seed 5")
    expected = Config(5, count=7, share=1.0, any_number=-2.5, name="x", mode="slow", flag=True)
    assert config == expected and type(config.count) is int and type(config.share) is float


@dataclass
class Folders:
    runs: tuple = words(("runs/ppo",), "folders of runs")
    n: int = option(1, "how many")


@pytest.mark.parametrize("line, runs, n", [("", ("runs/ppo",), 1), ("a b", ("a", "b"), 1),
                                           ("a --n 3", ("a",), 3), ("--n 3 a b", ("a", "b"), 3)])
def test_words_without_a_flag_are_a_tuple(line, runs, n):
    assert parse(Folders, "A test.", line.split()) == Folders(runs, n)


@dataclass
class Stops:
    stop: tuple = option((), "where to stop")
    n: int = option(1, "how many")


@pytest.mark.parametrize("line, stops", [("", ()), ("--stop a", ("a",)),
                                         ("--stop b --n 1 --stop a", ("b", "a"))])
def test_a_flag_that_may_be_repeated_is_a_tuple_in_the_order_given(line, stops, capsys):
    assert parse(Stops, "A test.", line.split()) == Stops(stops, 1)
    with pytest.raises(SystemExit):
        parse(Stops, "A test.", ["--help"])
    assert "--stop TEXT  where to stop; may be repeated" in capsys.readouterr().out


def test_limits_belong_to_the_range():
    assert given("--count 1 --share 0").share == 0 and given("--share 1.0").share == 1


@pytest.mark.parametrize("line, reason", [
    ("--count 0", "0 is not at least 1"),
    ("--count 2.5", "invalid int value"),
    ("--count many", "invalid int value"),
    ("--count", "expected one argument"),
    ("--share 1.01", "1.01 is not from 0 to 1"),
    ("--share -0.1", "-0.1 is not from 0 to 1"),
    ("--share nan", "nan is not from 0 to 1"),
    ("--share half", "invalid float value"),
    ("--mode medium", "invalid choice: 'medium'"),
    ("--flag yes", "unrecognized arguments: yes"),
    ("--no-flag", "unrecognized arguments: --no-flag"),
    ("--unknown 1", "--unknown"),
    ("--coun 1", "--coun"),   # a new flag must not change what an old command means
    ("--device tpu", "invalid choice: 'tpu'"),
    ("--seed -1", "-1 is not from 0 to"),
])
def test_a_bad_value_leaves_with_status_2_and_one_line(line, reason, capsys):
    with pytest.raises(SystemExit) as left:
        given(line)
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == ""
    assert err.startswith("error: ") and reason in err and err.count("\n") == 1


@pytest.mark.parametrize("module", MODULES)
def test_defaults_are_within_their_own_limits_and_of_their_own_type(module):
    for field in fields(module.Config):
        low, high, choices = (field.metadata.get(key) for key in ("low", "high", "choices"))
        assert low is None or field.default >= low
        assert high is None or field.default <= high
        assert choices is None or field.default in choices
        assert type(field.default) is field.type and field.metadata["help"]


# ---------------------------------------------------------------- --help

def shown_by(module, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")   # no words broken at their hyphens
    with pytest.raises(SystemExit) as left:
        launch(module.main, module.Config, module.__doc__, ["--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES)
def test_help_shows_every_flag_with_its_help_and_default(module, capsys, monkeypatch):
    shown = " ".join(shown_by(module, capsys, monkeypatch).split())
    for field in fields(module.Config):
        plain = "words" in field.metadata   # without a flag: several words, a tuple
        assert (f"[{field.name.upper()} ...]" if plain else "--" + field.name.replace("_", "-")) in shown
        usual = " ".join(field.default) if field.type is tuple else field.default
        default = "" if field.type is bool or usual == "" else f" (default: {usual})"
        assert field.metadata["help"] + default in shown


def groups(shown):
    """{heading: flags below it} of a --help, in its order."""
    found = {}
    for line in shown.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            flags = found.setdefault(line[:-1], [])
        elif line.startswith("  --"):
            flags.append(line.split()[0])
    return found


THE_RUN = ("--seed --device --precision --out --resume --overwrite --compile --recompute "
           "--tensorboard --save-every").split()


@pytest.mark.parametrize("module, first", [
    (pretrain, {DATA: ["--data", "--longest-prompt"],
                MODEL: "--architecture --vocab-size --width --heads --layers --context --dropout".split()}),
    (train_reward, {DATA: ["--data", "--longest-prompt"], MODEL: ["--model"]}),
    (finetune_ppo, {DATA: "--data --shortest-prompt --longest-prompt".split(),
                    MODEL: "--model --reward --score --separate-critic --temperature".split()})])
def test_the_flags_of_a_stage_stand_in_groups_and_those_of_the_run_are_the_last(
        module, first, capsys, monkeypatch):
    found = groups(shown_by(module, capsys, monkeypatch))
    own = "PPO" if module is finetune_ppo else "training"
    assert list(found) == ["options", DATA, MODEL, own, RUN]
    assert found[RUN] == THE_RUN and {title: found[title] for title in first} == first
    assert sum(map(len, found.values())) == len(fields(module.Config))
    assert {"--lr", "--passes" if own != "PPO" else "--iterations"} <= set(found[own])


def test_a_flag_without_a_group_stands_with_those_of_its_class(capsys, monkeypatch):
    @dataclass
    class Own(StageConfig):
        GROUP = "mine"
        seed: int = option(1, "another default, in the group of the class that gives it")
        mine: int = option(2, "in the group of its class")
        model: str = option("", "in the group it names", group=MODEL)
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        parse(Own, "A test.", ["--help"])
    found = groups(capsys.readouterr().out)
    assert found["mine"] == ["--seed", "--mine"] and found[MODEL] == ["--model"]
    assert found[RUN] == [flag for flag in THE_RUN if flag != "--seed"]


@pytest.mark.parametrize("module", MODULES)
def test_a_switch_is_off_without_its_flag_and_has_no_second_form(module, capsys, monkeypatch):
    assert "--no-" not in shown_by(module, capsys, monkeypatch)
    assert not any(field.default for field in fields(module.Config) if field.type is bool)


def test_resume_and_overwrite_exclude_each_other():
    with pytest.raises(UserError, match="--resume keeps .* --overwrite deletes it; give one"):
        StageConfig(resume=True, overwrite=True)


# ---------------------------------------------------------------- exit statuses

def test_a_user_s_error_in_main_leaves_with_status_2_and_one_line(capsys):
    def main(config):
        raise UserError(f"--count {config.count}:\n too many")
    with pytest.raises(SystemExit) as left:
        launch(main, Config, "A test.", ["--count", "9"])
    assert left.value.code == 2 and capsys.readouterr().err == "error: --count 9: too many\n"


def left_by(error, capsys, config_class=Config):
    """Exit status and stderr of a script whose main raises this."""
    def main(config):
        raise error
    with pytest.raises(SystemExit) as left:
        launch(main, config_class, "A test.", [])
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize("error, config_class, status, line", [
    (DataError("the data has\n3 usable rows"), Config, 2, "the data has 3 usable rows"),
    (NonFiniteError("iteration 3: loss is not finite"), StageConfig, 3,
     "iteration 3: loss is not finite; train again with a lower --lr and --overwrite"),
    (NonFiniteError("loss is not finite"), Config, 3,
     "loss is not finite; train again with a lower --lr"),   # it has no --overwrite
    (KeyboardInterrupt(), StageConfig, 130,
     "stopped; the same command with --resume, and no --overwrite, goes on"),
    (KeyboardInterrupt(), Config, 130, "stopped"),
    (PermissionError(13, "Permission denied", "a.txt"), Config, 2,
     "[Errno 13] Permission denied: 'a.txt'; fix that, and try again")])
def test_what_a_user_can_cause_has_its_status_and_one_line(error, config_class, status, line, capsys):
    assert left_by(error, capsys, config_class) == (status, f"error: {line}\n")


def test_a_user_error_is_one_line_whatever_it_is_made_of():
    assert str(UserError("a: wrong\n  fix\tit ")) == "a: wrong fix it"


def test_of_a_very_long_line_the_middle_is_left_out(capsys):
    status, err = left_by(UserError("a" * 600 + "b" * 600), capsys)
    assert (status, err) == (2, "error: " + "a" * 500 + " ... " + "b" * 500 + "\n")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), ArithmeticError("a bug")])
def test_other_errors_are_not_hidden(error):
    def main(config):
        raise error
    with pytest.raises(type(error), match="a bug"):
        launch(main, Config, "A test.", [])


@pytest.mark.parametrize("before, inside", [
    (signal.SIG_DFL, signal.default_int_handler), (signal.SIG_IGN, signal.SIG_IGN)])
def test_sigterm_stops_a_script_as_ctrl_c_does_unless_it_is_ignored(before, inside):
    found, kept = [], signal.signal(signal.SIGTERM, before)
    try:
        launch(lambda config: found.append(signal.getsignal(signal.SIGTERM)), Config, "A test.", [])
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert found == [inside]


# ---------------------------------------------------------------- minippo COMMAND

def test_minippo_alone_lists_the_commands(monkeypatch, capsys):
    for given in ([], ["--help"], ["-h"]):
        monkeypatch.setattr("sys.argv", ["minippo", *given])
        main()
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == "usage: minippo COMMAND [flags]; each has its own --help"
        assert [line.split()[0] for line in lines] == list(COMMANDS)
        assert all(len(line.split()) > 4 for line in lines)   # and what each does


def test_an_unknown_command_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["minippo", "dance", "--fast"])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err == f"error: dance: no such command; there is {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_help_of_its_own_under_its_own_name(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["minippo", command, "--help"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: minippo {command} [-h]")


def test_lists_of_numbers():
    assert numbers("0.4,0.1, 0.4", float, 0) == [0.1, 0.4]
    for wrong in ("", "a", "1,,b", "-1", "nan", "inf"):
        with pytest.raises(UserError, match="give numbers from 0 on"):
            numbers(wrong, float, 0)


def test_what_others_know_of_stage_3_s_flags_is_what_it_has():
    own = {f.name: f for f in fields(finetune_ppo.Config)}
    for f in fields(Stage3):
        assert (f.type, f.default) == (own[f.name].type, own[f.name].default), f.name
        for limit in ("low", "high", "choices"):
            assert f.metadata[limit] == own[f.name].metadata[limit], f.name
