"""The faults that are put into runs: each still fits the code, and doctor has a finding of that name."""

import pytest

from minippo.tools import doctor

pytest.importorskip("fcntl")   # Windows lacks it
from tests.instruments.sick import FAULTS, PAGE, ROOT, edited, listed, main


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fits_the_code_once_and_is_named(fault):
    texts = edited(ROOT, fault.edits)
    assert texts.keys() == fault.edits.keys() and (fault.edits or fault.flags)
    for file, text in texts.items():
        compile(text, file, "exec")
        assert text != (ROOT / file).read_text(encoding="utf-8")
    findings = doctor.ANY_STAGE + [finding for stage in doctor.STAGES for finding in stage[3]]
    assert fault.finding in [finding.name for finding in findings]


def test_the_page_lists_the_findings_as_they_are_told():
    assert listed() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("words, message", [
    (["--only", "nobody"], "--only nobody: no fault of that name"),
    (["--write", "--only", "clip off"], "--write needs all faults")], ids=["unknown", "half a table"])
def test_what_would_try_nothing_or_write_half_a_table_is_refused(words, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("old, times", [("def update(", 1), ("no such line", 0), ("import", 2)])
def test_an_edit_that_fits_nowhere_or_twice_is_refused(tmp_path, old, times):
    (tmp_path / "a.py").write_text("import def update(): import", encoding="utf-8")
    if times == 1:
        assert edited(tmp_path, {"a.py": (old, "x")}) == {"a.py": "import x): import"}
    else:
        with pytest.raises(ValueError, match=f"occurs {times} times in a.py"):
            edited(tmp_path, {"a.py": (old, "x")})
