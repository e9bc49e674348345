"""The faults fit the project, and the hunt tells one that is found from one that is not."""

import ast
from pathlib import Path

import pytest

from tests.instruments.mutants import FORKS, LATE, MUTANTS, ROOT, Mutant, hunt, main, mutated, trial


def wrong_with(mutant):
    """What keeps a fault from being tried; nothing if all is well."""
    try:
        text = mutated(ROOT, mutant)
        ast.parse(text)
    except (OSError, SyntaxError, ValueError) as error:
        return f"{mutant.name}: {error}"
    files = [test for test in mutant.tests if test.endswith(".py")]
    if not files or not all((ROOT / file).is_file() for file in files):
        return f"{mutant.name}: tests {files}"
    return None if text != (ROOT / mutant.file).read_text(encoding="utf-8") else mutant.name


def test_every_fault_has_its_place_once_its_tests_and_leaves_python():
    assert [wrong for mutant in MUTANTS if (wrong := wrong_with(mutant))] == []


def test_there_are_many_faults_each_with_its_own_name_in_every_file_that_learns():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 200
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(names)
    files = {Path(mutant.file).name for mutant in MUTANTS}
    assert files >= {"ppo.py", "policy.py", "reward.py", "memory.py", "transformer.py",
                     "generation.py", "data.py", "training.py", "score.py", "tokens.py",
                     "checkpoint.py", "words.py", "calibration.py", "comparison.py",
                     "pretrain.py", "train_reward.py", "finetune_ppo.py"}


# ---------------------------------------------------------------- the hunt, in a project of 2 lines

@pytest.fixture
def project(tmp_path):
    """A function, the test of it that comes first, and another that only the whole suite has."""
    FORKS.set_forkserver_preload(["pytest"])   # no torch here
    def write(path, text):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    write("minippo/__init__.py", "")
    write("minippo/half.py", "def half(x):\n    return x / 2\n")
    begin = "from minippo.half import half\n"
    write("tests/test_half.py", begin + "def test_of_4():\n    assert half(4) == 2\n")
    write("tests/test_more.py", begin + "def test_of_3():\n    assert half(3) == 1.5\n")
    return tmp_path


def fault(new, old="return x / 2"):
    return Mutant(new, "minippo/half.py", old, new, ("tests/test_half.py",))


def test_faults_are_killed_by_their_own_tests_or_by_the_whole_suite_or_survive(project):
    found, other, neither = fault("return x * 2"), fault("return x // 2"), fault("return 0.5 * x")
    seen = {}
    left = hunt(project, [found, other, neither], 1, 20,
                lambda mutant, killer: seen.update({mutant: killer}))
    assert left == [neither]
    assert seen == {found: "tests/test_half.py::test_of_4", other: "tests/test_more.py::test_of_3",
                    neither: None}
    assert (project / "minippo/half.py").read_text() == "def half(x):\n    return x / 2\n"


def test_a_fault_that_never_ends_is_killed_by_the_time_limit(project):
    endless = fault("while True: pass")
    seen = []
    assert hunt(project, [endless], 1, 1, lambda mutant, killer: seen.append(killer)) == []
    assert seen == [LATE]


def test_a_test_that_fails_without_any_fault_kills_nothing(project):
    (project / "tests/test_half.py").write_text(
        "import pytest\n@pytest.mark.parametrize('x', ['a b'])\n"
        "def test_wrong(x):\n    assert False, 'one - two'\n")
    with pytest.raises(RuntimeError, match=r"test_half.py::test_wrong\[a b\] fails without any"):
        hunt(project, [fault("return 0")], 1, 20, print)
    with pytest.raises(RuntimeError, match="pytest ended with status 4"):   # no such file
        trial(project, None, ["tests/test_nothing.py"], 20)


def test_a_trial_has_the_copy_s_modules_and_not_those_of_the_project_that_hunts(project):
    (project / "tests/outside.py").write_text("ROOT = 'of the copy'\n")
    (project / "tests/test_place.py").write_text(
        "from tests.outside import ROOT\ndef test_place():\n    assert ROOT == 'of the copy'\n")
    assert trial(project, None, ["tests/test_place.py"], 20) is None


@pytest.mark.parametrize("old, times", [("return x / 3", 0), ("x", 2)])
def test_a_fault_whose_place_is_not_there_exactly_once_is_refused(project, old, times):
    with pytest.raises(ValueError, match=f"occurs {times} times in minippo/half.py"):
        hunt(project, [fault("return 0"), fault("return 0", old)], 1, 20, None)   # says nothing


def test_the_list_names_every_fault_and_a_wrong_name_is_an_error(capsys):
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        mutant.name for mutant in MUTANTS]
    with pytest.raises(SystemExit):
        main(["--only", "no_such"])
    assert "no such fault: no_such" in capsys.readouterr().err


@pytest.mark.parametrize("left, status", [([], 0), (MUTANTS[:1], 1)])
def test_the_exit_status_says_whether_one_survives(monkeypatch, capsys, left, status):
    monkeypatch.setattr("tests.instruments.mutants.hunt", lambda root, mutants, jobs, limit, say: left)
    assert main(["--only", MUTANTS[0].name]) == status
    assert f"{1 - status} of 1 killed" in capsys.readouterr().out
