"""A dataclass is the command line, and a mistake on it is one line."""

from dataclasses import dataclass, fields

import pytest

import finetune_ppo
import pretrain
import train_reward
from minippo.run.flags import DeviceConfig, option, parse, run
from minippo.run.errors import UserError
from minippo.tools import generate

MODULES = [pretrain, train_reward, finetune_ppo, generate]


@dataclass
class Config(DeviceConfig):
    count: int = option(3, "how many", low=1)
    share: float = option(0.5, "how much", low=0, high=1)
    any_number: float = option(1.0, "without limits")
    name: str = option("", "any text")
    mode: str = option("fast", "which", choices=("fast", "slow"))
    flag: bool = option(False, "whether")
    other: bool = option(True, "whether not")


def given(line):
    return parse(Config, "A test.", line.split())


def test_without_flags_the_defaults_hold():
    assert given("") == Config()


def test_flags_set_fields_of_their_types():
    config = given("--count 7 --share 1 --any-number -2.5 --name x --mode slow "
                   "--flag --no-other --seed 5")
    expected = Config(5, count=7, share=1.0, any_number=-2.5, name="x", mode="slow",
                      flag=True, other=False)
    assert config == expected and type(config.count) is int and type(config.share) is float


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


def test_a_user_s_error_in_main_leaves_with_status_2_and_one_line(capsys):
    def main(config):
        raise UserError(f"--count {config.count}:\n too many")
    with pytest.raises(SystemExit) as left:
        run(main, Config, "A test.", ["--count", "9"])
    assert left.value.code == 2 and capsys.readouterr().err == "error: --count 9: too many\n"


def test_other_errors_are_not_hidden():
    def main(config):
        raise RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        run(main, Config, "A test.", [])


@pytest.mark.parametrize("module", MODULES)
def test_help_shows_every_flag_with_its_help_and_default(module, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")   # no words broken at their hyphens
    with pytest.raises(SystemExit) as left:
        run(module.main, module.Config, module.__doc__, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0
    for field in fields(module.Config):
        assert "--" + field.name.replace("_", "-") in shown
        assert f"{field.metadata['help']} (default: {field.default})" in shown


@pytest.mark.parametrize("module", MODULES)
def test_defaults_are_within_their_own_limits_and_of_their_own_type(module):
    for field in fields(module.Config):
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        assert low is None or field.default >= low
        assert high is None or field.default <= high
        assert choices is None or field.default in choices
        assert type(field.default) is field.type and field.metadata["help"]
