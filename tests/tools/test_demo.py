"""The demo as it is run: three processes, one scene, tokens that come one after another."""

import re
from pathlib import Path

import pytest

from tools import demo


@pytest.mark.slow
def test_the_demo_shows_tokens_as_they_come(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """The simulator waits between events, so a first token that comes first was not kept."""
    demo.run_demo("streaming", tmp_path)
    out, err = capfd.readouterr()
    assert err == ""
    found = re.search(r"first token after (\d+) ms, the last of (\d+) after (\d+) ms", out)
    assert found is not None
    first_ms, count, last_ms = map(int, found.groups())
    assert count > 10
    assert last_ms - first_ms > 10
    assert "stopped cleanly" in out


def test_an_example_that_fails_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ROOT", tmp_path)  # where there is no example
    with pytest.raises(demo.DemoError, match="the example ended with 1"):
        demo._run_example(tmp_path / "s", "http://127.0.0.1:1", "all")
