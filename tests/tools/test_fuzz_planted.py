"""Bugs planted in a copy of the runtime: each is found by the fuzzer alone."""

import pytest

from tools.fuzz._cli import main
from tools.fuzz._steps import save
from tools.fuzz.planted import PlantedError, find, planted_bugs, serving_copy

BUGS = {bug.name: bug for bug in planted_bugs()}


def test_there_are_many_and_each_says_what_it_is(tmp_path):
    assert len(BUGS) >= 12
    (tmp_path / "mute.patch").write_text("diff")
    with pytest.raises(PlantedError, match="does not begin"):
        planted_bugs(tmp_path)


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
@pytest.mark.parametrize("name", BUGS)
def test_every_bug_is_found(name, tmp_path):
    report = find(BUGS[name], for_s=60.0)
    assert report.recording is not None, BUGS[name].what
    if name == "double_answer":
        save(report.recording, tmp_path / "f.json")
        with serving_copy(BUGS[name].path) as path:
            assert main(["--socket", path, "--replay", str(tmp_path / "f.json")]) == 1
        with serving_copy() as path:
            assert main(["--socket", path, "--replay", str(tmp_path / "f.json")]) == 0
