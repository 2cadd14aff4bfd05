"""The supervisor's log."""

import json
import os
import re

import pytest

from vastar_runtime.workers.journal import Journal


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_lines_have_the_keys_of_every_other_log_line(pipe):
    read, write = pipe
    journal = Journal(write, "info", "auto", is_terminal=False)
    journal.warning("worker ended", worker=1, reason="token=abc")
    line = json.loads(os.read(read, 4096))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "warning",
        "event": "worker ended",
        "component": "vastar_runtime.workers",
        "worker": 1,
        "reason": "token=[redacted]",
    }


def test_people_get_a_line_without_control_characters(pipe):
    read, write = pipe
    journal = Journal(write, "info", "auto", is_terminal=True)
    journal.info("ready", who="\x1b[0m\n")
    (line,) = os.read(read, 4096).decode().splitlines()
    assert re.search(r"\[info     \] ready +who='\\x1b\[0m\\n'$", line)


def test_levels_hold_and_can_change(pipe):
    read, write = pipe
    journal = Journal(write, "error", "json", is_terminal=True)
    journal.info("no")
    journal.warning("no")
    journal.error("yes")
    journal.configure("info", "console")
    journal.info("now")
    lines = os.read(read, 4096).decode().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["event"] == "yes"
    assert lines[1].rstrip().endswith("now")
