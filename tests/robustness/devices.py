"""The three stages on a device that is not the CPU: nothing is left behind, nothing is mixed.

    python -m pytest tests/robustness/devices.py     as test_devices.py does: torch has one more device then
"""

import json

import pytest
import torch
from torch.utils._pytree import tree_leaves

import pretrain
from minippo.run.checkpoint import load_tensors
from minippo.run.flags import parse
from minippo.tools import generate
from tests.robustness import world

try:
    from tests.robustness.elsewhere import DEVICE, Everywhere
except (ImportError, AttributeError):
    pytest.skip("this torch cannot pretend to have another device", allow_module_level=True)


def test_the_device_computes_as_the_cpu_does_and_refuses_to_be_mixed():
    here = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with Everywhere():
        there = here.to(DEVICE)
        assert there.device == DEVICE and (there @ there).sum().item() == 54   # 7 + 10 + 15 + 22
        assert torch.equal((there * here[0, 1]).cpu(), here * 2)      # a number may come along
        assert there[torch.tensor([1])].tolist() == [[3, 4]]          # and so may indices
        there[:, 0] += 1
        assert there.cpu().tolist() == [[2, 2], [4, 4]]
        for mixed in (lambda: there + here, lambda: torch.cat([here, there]),
                      lambda: here * there.sum(),
                      lambda: here[there.long()[:, 0] - 2], lambda: torch.where(there > 1, 0, here),
                      lambda: there.masked_fill_(here > 1, 0)):
            with pytest.raises(RuntimeError, match="tensors of two devices"):
                mixed()
        with pytest.raises(RuntimeError, match="a generator of the CPU"):
            torch.rand(2, generator=torch.Generator(), device=DEVICE)


def content(path):
    """What a stage's file says, times aside, a flat list."""
    if path.suffix == ".pt":
        return tree_leaves(load_tensors(path))
    if path.suffix == ".jsonl":
        return tree_leaves(world.without_times(path))
    return tree_leaves(json.loads(path.read_text()))


def assert_similar(file, other):
    for x, y in zip(content(file), content(other), strict=True):
        if isinstance(x, (torch.Tensor, float)):   # another processor may round otherwise
            torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4, msg=str(file))
        else:
            assert x == y, file


def write(model):
    generate.main(generate.Config(model=str(model), prompt="the", precision="fp32", top_k=9, top_p=0.9))


@pytest.mark.parametrize("architecture, flags", [   # each architecture and each kind of critic once
    ("decoder", "--separate-critic --whiten-rewards"), ("seq2seq", "")])
def test_the_stages_end_with_the_same_numbers_on_every_device(
        tmp_path, monkeypatch, capsys, architecture, flags):
    for stage, more in (("pretrain", f"--architecture {architecture}"), ("ppo", flags)):
        script, given = world.STAGES[stage]
        monkeypatch.setitem(world.STAGES, stage, (script, f"{given} {more}"))
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    world.world(here)
    write(here / "ppo")
    written = capsys.readouterr().out
    for module in ("run.stage", "tools.shared.writing"):
        monkeypatch.setattr(f"minippo.{module}.pick_device", lambda name: DEVICE)
    with Everywhere():
        world.world(there)
        write(there / "ppo")
        assert capsys.readouterr().out == written
        monkeypatch.chdir(there)
        command = [*world.arguments_of("pretrain", "stopped"), "--resume"]
        pretrain.main(parse(pretrain.Config, "", command))
    files = [path.relative_to(here) for path in here.glob("[pr]*/*")   # of the three stages
             if path.name != "report.html"]   # a drawing of the rest
    assert len(files) == 14
    for file in files:
        assert_similar(there / file, here / file)
    assert_similar(there / "stopped/model.pt", here / "pretrain/model.pt")
