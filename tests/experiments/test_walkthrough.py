"""docs/walkthrough.md says what the code does: written again, and checked against numbers by hand."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch

from minippo.experiments import example, walkthrough
from minippo.experiments.walkthrough import Config, Number, facts, main
from minippo.policy import log_softmax
from minippo.run.errors import UserError
from tests.outside import ROOT

PAGE = (ROOT / "docs/walkthrough.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    return facts()


def numbers(x):
    """All Numbers in dicts and lists."""
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, list) else ()
    return [x] if isinstance(x, Number) else [number for part in parts for number in numbers(part)]


# ---------------------------------------------------------------- the page is the code's

def test_the_page_and_its_pictures_are_what_the_command_writes(tmp_path, capsys):
    main(Config(out=str(tmp_path / "walkthrough.md")))
    assert (tmp_path / "walkthrough.md").read_text(encoding="utf-8") == PAGE, (
        "write it again: python -m minippo walkthrough")
    new, old = tmp_path / "walkthrough", ROOT / "docs/walkthrough"
    assert {path.name for path in new.iterdir()} == {path.name for path in old.iterdir()}
    for path in new.iterdir():
        assert path.read_text(encoding="utf-8") == (old / path.name).read_text(encoding="utf-8"), path.name
    assert capsys.readouterr().out.startswith("written: ")


def test_no_number_is_so_near_a_rounding_edge_that_another_processor_could_print_another(found):
    assert len(numbers(found)) > 300
    for x in numbers(found):   # in thousandths the edge is at a half; float64 is right to 1e-12 or so
        assert abs(abs(x) * 1000 % 1 - 0.5) > 1e-5, x


def test_another_learning_rate_gives_another_page(tmp_path, monkeypatch):
    monkeypatch.setattr(walkthrough, "STEP", 0.1)
    main(Config(out=str(tmp_path / "walkthrough.md")))
    old, new = (text.split("## 11 ") for text in
                (PAGE, (tmp_path / "walkthrough.md").read_text(encoding="utf-8")))
    assert old[0] == new[0]   # up to the loss nothing depends on it
    assert len(set(re.findall(r"\d\.\d{3}", new[1])) - set(re.findall(r"\d\.\d{3}", old[1]))) > 10


def test_every_picture_on_the_page_is_there_has_words_and_is_readable_in_the_dark():
    named = re.findall(r"!\[(.+)\]\((walkthrough/.+\.svg)\)", PAGE)
    assert len(named) == len(list((ROOT / "docs/walkthrough").iterdir())) == 13
    for words, name in named:
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        picture = ET.fromstring(text)
        said = [element.text for element in picture if element.tag.endswith(("title", "desc"))]
        assert len(said) == 2 and all(said) and len(words) > 20
        assert "prefers-color-scheme: dark" in text


def test_links_on_the_page_lead_somewhere():
    titles = {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
              for title in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)}
    links = re.findall(r"(?<!!)\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert len(links) > 10
    for link in links:
        assert link in titles if link.startswith("#") else (ROOT / "docs" / link).exists(), link


def test_the_code_at_the_end_of_the_page_gives_the_page_s_numbers(found):
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    for place, at in walkthrough.PLACES.items():
        assert names["rollout"].advantages[at].item() == pytest.approx(found["white"][place], abs=1e-12)
        assert names["rollout"].rewards[at].item() == pytest.approx(found["reward"][place], abs=1e-12)
    lm = names["policy"].lm
    p = log_softmax(lm.logits(lm.table[example.FILM])).exp()
    assert p.tolist() == pytest.approx([*found["after"]["film"]["p"].values()], abs=1e-12)
    assert names["learned"]["ppo/loss/value"] == pytest.approx(found["loss_value"], abs=1e-12)


# ---------------------------------------------------------------- worked out by hand

def near(*numbers):
    return pytest.approx(numbers, abs=2e-6)


def test_logits_and_log_probabilities_after_film(found):
    # state (0.1, -0.4): END 2 * -0.4; film -0.1; very 0.15 + 0.4; good 0.15 - 0.4; bad -0.2
    film = found["policy"]["film"]
    assert [*film["logits"].values()] == near(-0.8, -0.1, 0.55, -0.25, -0.2)
    # exp: 0.449329 + 0.904837 + 1.733253 + 0.778801 + 0.818731 = 4.684951, its logarithm 1.544355
    assert (film["sum"], film["p"]["very"], film["logp"]["very"]) == near(4.684951, 0.369962, -0.994355)
    # log 4.684951 minus the mean logit: -(0.095909 * -0.8 + 0.193137 * -0.1 + 0.369962 * 0.55
    #   + 0.166235 * -0.25 + 0.174758 * -0.2) = -0.030932; 1.544355 - 0.030932
    assert film["entropy"] == pytest.approx(1.513423, abs=5e-6)


def test_kl_rewards_and_gae_of_the_three_tokens_of_a(found):
    # the reference after film, (-0.1, -0.2): logits -0.4, 0.1, 0.05, -0.35, 0.2; exp 0.670320 + 1.105171
    #   + 1.051271 + 0.704688 + 1.221403 = 4.752853, log 1.558745: very 0.05 - 1.558745 = -1.508745
    # after very, policy (0.8, 0.1): 0.2, -0.8, 1.1, 1.3, -1.6; sum 8.546091, log 2.145474: good -0.845474
    # after very, reference (0.6, 0.2): 0.4, -0.6, 0.7, 1.1, -1.2; sum 7.359750, log 1.996026: good -0.896026
    # after good both have (0.2, 1): the same
    assert [found["kl"][x] for x in ("A0", "A1", "A2")] == near(0.514390, 0.050552, 0)
    # beta 0.2, and the score, 1, at the end
    assert [found["reward"][x] for x in ("A0", "A1", "A2")] == near(-0.102878, -0.010110, 1)
    # values 0.1, 0.4, 0.7, and 0 after the end
    assert [found["delta"][x] for x in ("A0", "A1", "A2")] == near(0.197122, 0.289890, 0.3)
    # 0.289890 + 0.95 * 0.3 = 0.574890; 0.197122 + 0.95 * 0.574890 = 0.743267
    assert [found["advantage"][x] for x in ("A0", "A1", "A2")] == near(0.743267, 0.574890, 0.3)
    assert [found["returns"][x] for x in ("A0", "A1", "A2")] == near(0.843267, 0.974890, 1)


def test_whitening_of_the_five_tokens(found):
    # bad after film: policy -0.2 - 1.544355 = -1.744355, reference 0.2 - 1.558745 = -1.358745, kl -0.385610
    # END after bad, policy (-0.3, 0.9): 1.8, 0.3, -1.35, 0.45, 0.6; sum 11.049177, log 2.402356: -0.602356
    # reference (-0.3, 0.7): 1.4, 0.3, -1.15, 0.25, 0.6; sum 8.827840, log 2.177910: -0.777910, kl 0.175554
    # deltas 0.077122 - 0.5 - 0.1 = -0.522878, -0.035111 - 1 + 0.5 = -0.535111; -0.522878 - 0.95 * 0.535111
    assert [found["advantage"][x] for x in ("B0", "B1", "B2")] == near(-1.031233, -0.535111, 0)
    # 0.743267 + 0.574890 + 0.3 - 1.031233 - 0.535111 = 0.051813, / 5 = 0.010363
    # squares 0.552446 + 0.330499 + 0.09 + 1.063442 + 0.286344 = 2.322731; / 5 - 0.010363^2 = 0.464439
    assert (found["mean"], found["std"]) == near(0.010363, 0.681498)
    assert found["white"]["A0"] == pytest.approx(1.075431, abs=1e-5)   # (0.743267 - 0.010363) / 0.681498
    assert found["white"]["B2"] == 0


def test_gradient_step_and_ratio_of_very(found):
    # -A / 5 (1 - p): 1.075431 / 5 * 0.630038
    assert found["grad"]["A0"]["very"] == pytest.approx(-0.135513, abs=1e-5)
    # of bad in B: 1.528391 / 5 * (1 - 0.174758)
    assert found["grad"]["B0"]["bad"] == pytest.approx(0.252259, abs=1e-5)
    # A's other column: 1.075431 / 5 * 0.174758; the state after film gets both
    assert found["grad"]["film"]["bad"] == pytest.approx(0.252259 + 0.037588, abs=1e-5)
    gradient, head = [*found["grad"]["film"].values()], example.HEAD
    slope = [sum(g * vector[i] for g, vector in zip(gradient, head)) for i in (0, 1)]
    assert found["slope"] == near(*slope)
    state = found["after"]["film"]["state"]
    assert state == near(0.1 - 0.2 * slope[0], -0.4 - 0.2 * slope[1])
    p = found["after"]["film"]["p"]["very"]
    assert p > 0.4 and found["again"]["ratio"]["A0"] == pytest.approx(p / 0.369962, abs=1e-5)


# ---------------------------------------------------------------- what the prose says

def test_the_liked_word_becomes_likelier_the_other_rarer_and_the_neighbour_follows(found):
    before, after = (found[name]["film"]["p"] for name in ("policy", "after"))
    assert after["very"] > before["very"] and after["bad"] < before["bad"] and after["good"] > before["good"]
    for place in ("A1", "A2", "B1"):   # states that one response alone passed: nearer to its return
        old, new = (abs(x[place] - found["returns"][place]) for x in (found["value"], found["again"]["now"]))
        assert new < old


def test_the_first_loss_is_0_and_its_gradient_only_moves_probability(found):
    assert found["learned"]["ppo/loss/policy"] == pytest.approx(0, abs=1e-12)
    for place in ("A0", "A1", "A2", "B0", "B1"):
        gradient = found["grad"][place]
        assert sum(gradient.values()) == pytest.approx(0, abs=1e-12)
        assert max(map(abs, gradient.values())) > 0.03


def test_two_of_five_tokens_are_clipped_and_these_teach_nothing_more(found):
    again = found["again"]
    assert again["share"] == pytest.approx(0.4) and again["ratio"]["A0"] > 1.2 and again["ratio"]["B0"] < 0.8
    still = {place for place, gradient in again["grad"].items() if place != "film" and any(gradient.values())}
    assert still == {"A1", "A2", "B1"}
    assert all(again["each"][x] == max(again["unclipped"][x], again["clipped"][x]) for x in again["each"])


def test_nothing_is_counted_at_pad(found):
    for name in ("logp", "ref", "kl", "reward", "value", "delta", "advantage", "returns", "white"):
        assert found[name]["B2"] == 0, name


def test_a_number_has_a_real_minus_and_nothing_before_a_zero():
    assert [format(Number(x), "") for x in (-0.0, -0.0004, -0.0006, 1.5)] == ["0.000", "0.000", "\u22120.001",
                                                                            "1.500"]
    assert f"{Number(-0.25):.1f} {Number(2):.1f}" == "\u22120.2 2.0"


# ---------------------------------------------------------------- mistakes

@pytest.mark.parametrize("out, message", [
    ("", "--out is empty; name a file"), ("page.md", "page.svg|page: cannot be made"),
    ("page/sub/walkthrough.md", "cannot be made .*; name another --out")])
def test_where_nothing_can_be_written_one_line_says_so(tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page").write_text("mine")
    with pytest.raises(UserError, match=message):
        main(Config(out=out))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page", "mine")]


def test_a_link_in_the_place_of_the_page_is_not_followed(tmp_path):
    (tmp_path / "far").write_text("far")
    (tmp_path / "walkthrough.md").symlink_to(tmp_path / "far")
    with pytest.raises(UserError, match="walkthrough.md: a link"):
        main(Config(out=str(tmp_path / "walkthrough.md")))
    assert (tmp_path / "far").read_text() == "far"


def test_the_example_s_policy_and_reference_are_two_models_and_only_the_states_learn():
    policy, reference, _ = example.example()
    assert {name for name, x in policy.named_parameters() if x.requires_grad} == {"lm.table", "critic.table"}
    assert not any(x.requires_grad for x in reference.parameters())
    assert not torch.equal(policy.lm.table, reference.lm.table)
