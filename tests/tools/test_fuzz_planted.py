"""Bugs planted in a copy of the runtime: each is found by the fuzzer alone."""

import pytest

from tools.fuzz._cli import main
from tools.fuzz._steps import save
from tools.fuzz.planted import PATCHES, PlantedError, find, planted_bugs, serving_copy

BUGS = {bug.name: bug for bug in planted_bugs()}
EXAMPLES = 2000
"""Seed 0 needs 300 at most. What it finds it finds on a slow machine too: nothing is timed."""
NAMED = (
    "framing_off_by_one",
    "lost_cancel",
    "credit_leak",
    "double_answer",
    "wrong_id",
    "stale_breaker_result",
    "shared_breaker",
)


def test_there_are_many_and_each_says_what_it_is(tmp_path):
    assert len(BUGS) >= 12
    assert set(NAMED) <= set(BUGS)
    (tmp_path / "mute.patch").write_text("diff")
    with pytest.raises(PlantedError, match="does not begin"):
        planted_bugs(tmp_path)


def test_the_guide_has_a_row_for_each():
    guide = (PATCHES.parents[1] / "tools" / "fuzz" / "README.md").read_text(encoding="utf-8")
    assert [name for name in BUGS if f"| `{name}` |" not in guide] == []


@pytest.mark.slow
def test_a_patch_that_no_longer_applies_is_loud(tmp_path):
    text = BUGS["health_lie"].path.read_text().replace("active_requests", "other_name")
    (tmp_path / "old.patch").write_text(text)
    with (
        pytest.raises(PlantedError, match="no longer applies"),
        serving_copy(tmp_path / "old.patch"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.cap_s(300)
@pytest.mark.parametrize("name", BUGS)
def test_every_bug_is_found(name, tmp_path):
    report = find(BUGS[name], examples=EXAMPLES, shrink_s=10.0 if name == "double_answer" else 0.0)
    assert report.recording is not None, BUGS[name].what
    if name == "double_answer":
        assert report.recording.sent_bytes < 1000
        save(report.recording, tmp_path / "f.json")
        with serving_copy(BUGS[name].path) as path:
            assert main(["--socket", path, "--replay", str(tmp_path / "f.json")]) == 1
        with serving_copy() as path:
            assert main(["--socket", path, "--replay", str(tmp_path / "f.json")]) == 0
