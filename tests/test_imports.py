"""The package stands on torch, numpy and tokenizers alone, its modules on each other one way."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

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


def imports_of(path):
    """Modules of minippo that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        module = isinstance(node, ast.ImportFrom) and node.module or ""
        if module.split(".")[0] == "minippo":
            package = module == "minippo"
            names = [f"minippo.{alias.name}" for alias in node.names] if package else [module]
            found |= {name.removeprefix("minippo.") for name in names}
    return found


def test_ppo_knows_neither_the_transformer_nor_the_reward_model():
    assert imports_of(ROOT / "minippo/ppo.py") <= {"config", "finite", "memory", "tokens"}


def test_imports_go_round_in_no_circle():
    graph = {path.stem: imports_of(path) for path in (ROOT / "minippo").glob("*.py")}
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        assert leaves, f"circle among {sorted(graph)}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
