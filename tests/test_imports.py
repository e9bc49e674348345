"""The package stands on torch, numpy and tokenizers alone, its modules on each other one way."""

import ast
import re
import subprocess
import sys
from statistics import median

import pytest

from minippo.run.commands import COMMANDS
from tests.outside import ROOT

BLOCKED_STEP = """
import sys
allowed = {"torch", "numpy", "tokenizers"} | set(sys.stdlib_module_names)

class Guard:
    def find_spec(self, name, path=None, target=None):
        caller = sys._getframe(1)
        while caller.f_globals["__name__"].startswith("importlib"):
            caller = caller.f_back
        ours = caller.f_globals["__name__"].split(".")[0] in ("minippo", "__main__")
        if ours and name.split(".")[0] not in allowed | {"minippo"}:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Guard())
import pkgutil, importlib, torch, minippo
for module in pkgutil.walk_packages(minippo.__path__, "minippo."):
    if module.name != "minippo.__main__":
        importlib.import_module(module.name)
from minippo.transformer import TransformerConfig, build
from minippo.policy import ActorCritic, frozen
from minippo.ppo import PPOConfig, collect, update
from minippo.memory import PPOMemory
policy = ActorCritic(build(TransformerConfig(11, 0, width=16, heads=2, layers=1))).eval()
memory = PPOMemory()
query, score = torch.zeros(4, 1).long(), lambda q, r: (r == 3).sum(1).float()
rollout, _ = collect(policy, frozen(policy), score, query, PPOConfig())
memory.store(rollout)
update(policy, torch.optim.Adam(policy.parameters()), memory, PPOConfig())
print("trained")
"""


def test_everything_imports_and_trains_a_step_with_every_other_package_blocked():
    done = subprocess.run([sys.executable, "-c", BLOCKED_STEP], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.stdout == "trained\n", done.stderr


# ---------------------------------------------------------------- who knows whom

def module_of(path):
    """minippo/run/flags.py -> run.flags"""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """What a file imports from minippo: pairs (module, name), name "" if it is the module itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {(node.module, alias.name) for alias in node.names}
    ours = {(module, name) for module, name in found if module.split(".")[0] == "minippo"}
    modules = set(FILES)
    return {(f"{module}.{name}", "") if f"{module}.{name}".removeprefix("minippo.") in modules
            else (module, name) for module, name in ours}


def targets_of(path):
    """Names of the modules of minippo that a file imports, such as run.flags."""
    return {module.removeprefix("minippo.") for module, _ in imports_of(path)}


PACKAGE = ROOT / "minippo"
FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
SHELF = {name: path for name, path in FILES.items()
         if path.parent == PACKAGE and name not in ("__init__", "__main__")}
FOLDERS = ("run", "corpora", "tools", "bridges", "experiments")


def folder_of(module):
    return module.split(".")[0]


def test_the_shelf_imports_nothing_from_the_folders_below_but_how_a_field_becomes_a_flag():
    found = {(name, module, what) for name, path in SHELF.items() for module, what in imports_of(path)
             if folder_of(module.removeprefix("minippo.")) in FOLDERS}
    # a field's default, help and range in one line: all that makes PPOConfig a command line
    assert found == {("ppo", "minippo.run.flags", "option")}


SHELF_ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"minippo.{name}")
print(*sorted(name for name in sys.modules if name.startswith("minippo.")))
"""


def test_loading_the_whole_shelf_loads_flags_and_errors_and_nothing_else_of_the_folders():
    done = subprocess.run([sys.executable, "-c", SHELF_ALONE, *SHELF], cwd=ROOT,
                          capture_output=True, text=True)
    names = [*SHELF, "run", "run.errors", "run.flags"]
    assert done.stdout.split() == sorted(f"minippo.{name}" for name in names), done.stderr


def test_ppo_knows_neither_the_transformer_nor_the_reward_model():
    assert targets_of(PACKAGE / "ppo.py") <= {"memory", "run.flags", "tokens", "training"}


@pytest.mark.parametrize("folder, above", [
    ("run", ("tools", "bridges", "experiments")), ("tools", ("bridges", "experiments"))])
def test_what_surrounds_a_stage_knows_no_tool_and_tools_know_no_experiment(folder, above):
    reached = {name: targets_of(path) for name, path in FILES.items() if folder_of(name) == folder}
    assert len(reached) > 10
    assert not {(name, target) for name, targets in reached.items() for target in targets
                if folder_of(target) in above}


def test_every_folder_is_packaged():
    packaged = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S).group(1)
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES.values()}
    assert set(re.findall(r'"(.*?)"', packaged)) == folders


def test_imports_go_round_in_no_circle():
    graph = {name: targets_of(path) for name, path in FILES.items()}
    assert {folder_of(name) for name in graph} >= {*FOLDERS, "ppo"}
    assert set().union(*graph.values()) <= graph.keys() | {"minippo"}   # every target was found
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        assert leaves, f"circle among {sorted(graph)}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}


# ---------------------------------------------------------------- how much there is to read

SCRIPTS = [ROOT / name for name in ("pretrain.py", "train_reward.py", "finetune_ppo.py")]
READ = [*(PACKAGE / f"{name}.py" for name in ("__init__", "__main__", *SHELF)), *SCRIPTS]


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def functions_of(path):
    """(name, lines) of every function in a file, decorators and docstring included."""
    return [(f"{path.name}: {node.name}", node.end_lineno - first_line(node) + 1)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def first_line(node):
    return min([node.lineno, *(x.lineno for x in node.decorator_list)])


def test_shelf_and_scripts_are_1600_lines_at_most_and_ppo_270():
    assert sum(map(lines_of, READ)) <= 1600
    assert lines_of(PACKAGE / "ppo.py") <= 270


def test_tools_are_3000_lines_at_most_and_a_command_is_one_file_of_200():
    assert sum(lines_of(path) for name, path in FILES.items() if folder_of(name) == "tools") <= 3000
    commands = {path.stem: lines_of(path) for path in (PACKAGE / "tools").glob("*.py")}
    assert commands.keys() - {"__init__"} <= COMMANDS.keys()
    assert max(commands.values()) <= 200


def test_no_function_is_longer_than_30_lines_a_script_s_main_40_and_half_are_below_10():
    functions = [each for path in READ for each in functions_of(path)]
    mains = {f"{path.name}: main" for path in SCRIPTS}
    assert mains <= dict(functions).keys()
    assert [each for each in functions if each[1] > (40 if each[0] in mains else 30)] == []
    assert median(lines for _, lines in functions) < 10
